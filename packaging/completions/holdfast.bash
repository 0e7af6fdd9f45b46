# bash completion for holdfast(1).

# The options of a verb, in the order of its --help.
_holdfast_options() {
  case $1 in
    mount) echo "--help --origin --as --partition --offset --verify --merkle --identity --renew --erofs-options --suid --dev --timeout
                 --persist --json --quiet --ca-file
                 --client-cert --client-key --headers-file --s3-endpoint --s3-region --s3-profile --s3-path-style
                 --auth-file --plain-http --mirror --instance --root --cache-dir
                 --request-timeout --detach-policy --on-full --cache-max --cache-min-free --fetch-size --readahead-max --fetch-exact
                 --watchdog --no-spare --fetcher-user --metrics-listen --daemon-flag --fetcher-flag" ;;
    mount-erofs) echo "--help --options --timeout --json --instance --root" ;;
    umount) echo "--help --keep --lazy --force --keep-persistent --timeout --instance --root --json" ;;
    mounts) echo "--help --restore --until-mounted --unmount --json --timeout --instance --root" ;;
    status) echo "--help --json --check --watch --instance --root" ;;
    'cache ls') echo "--help --json --instance --root" ;;
    'cache limit') echo "--help --max --min-free --json --instance --root" ;;
    'cache pin') echo "--help --instance --root" ;;
    'cache unpin') echo "--help --instance --root" ;;
    'cache rm') echo "--help --bytes --json --timeout --instance --root" ;;
    'cache prune') echo "--help --older-than --dry-run --json --timeout --instance --root" ;;
    'config check') echo "--help --instance --root" ;;
    'config show') echo "--help --json --instance --root" ;;
    'config write') echo "--help --instance --root" ;;
    metrics) echo "--help --output --instance --root" ;;
    report) echo "--help --output --instance --root" ;;
    'trace slow') echo "--help --over --json --instance --root" ;;
    start) echo "--help --cachefiles-device --cache-dir --timeout --instance --root" ;;
    stop) echo "--help --timeout --instance --root" ;;
    dump) echo "--help --cache-dir --instance --root" ;;
    verify) echo "--help --timeout --cache-dir --content --as-new-boot --boot-id --json --instance --root" ;;
    'image build') echo "--help --force --config --tmp-dir --max-size --json --auth-file --plain-http
                 --ca-file" ;;
    'image push') echo "--help --json --auth-file --plain-http --ca-file" ;;
    'image inspect') echo "--help --json --timeout --auth-file --plain-http --mirror --ca-file
                 --instance --root" ;;
    'rootfs create') echo "--help --image --upper --tmpfs --env --volume --user --net --timeout --auth-file
                 --plain-http --mirror --ca-file --instance --root" ;;
    'rootfs mount') echo "--help --timeout --instance --root" ;;
    'rootfs rm') echo "--help --force --timeout --instance --root" ;;
    'rootfs list') echo "--help --json --timeout --instance --root" ;;
    run) echo "--help --name --upper --tmpfs --env --volume --user --net --timeout --auth-file
                 --plain-http --mirror --ca-file --instance --root" ;;
    cachefiles-run) echo "--help --static --exact-ids --cachefiles-device" ;;
    upgrade) echo "--help --timeout --instance --root" ;;
    supervise) echo "--help --fetcher-user --metrics-listen --cachefiles-device --no-standby --can-exchange --instance --root" ;;
    version) echo "--help" ;;
    cache | config | image | rootfs | trace) echo "--help" ;;
    *) echo "--help --version" ;;
  esac
}

_holdfast_instances() {
  local directory=${HOLDFAST_ROOT%/}
  command ls -1 "$directory/run/holdfast" "$directory/var/lib/holdfast" 2>/dev/null | grep -v '[:/]'
}

# The mount points on record.
_holdfast_mounts() {
  local directory=${HOLDFAST_ROOT%/}
  sed -n 's/.*"mount_point":"\([^"]*\)".*/\1/p' "$directory"/run/holdfast/*/mounts/*.json 2>/dev/null
}

_holdfast() {
  local cur prev words cword split
  declare -F _init_completion >/dev/null || return  # bash-completion is not loaded.
  _init_completion -s || return
  local verb='' word
  for word in "${words[@]:1:cword-1}"; do
    if [[ $word == -* ]]; then
      [[ -z $verb ]] && continue
      break
    elif [[ -z $verb ]]; then
      verb=$word
      [[ $verb == cache || $verb == config || $verb == image || $verb == rootfs || $verb == trace ]] || break
    else
      verb="$verb $word"
      break
    fi
  done
  case $prev in
    --as) COMPREPLY=($(compgen -W 'auto erofs squashfs ext4 xfs btrfs iso9660 cramfs file' -- "$cur")); return ;;
    --detach-policy) COMPREPLY=($(compgen -W 'hold fail' -- "$cur")); return ;;
    --on-full) COMPREPLY=($(compgen -W 'wait through' -- "$cur")); return ;;
    --instance) COMPREPLY=($(compgen -W "$(_holdfast_instances)" -- "$cur")); return ;;
    --cachefiles-device | --ca-file | --client-cert | --client-key | --headers-file | --auth-file | --config | --output) _filedir; return ;;
    --identity) COMPREPLY=($(compgen -W 'query path' -- "$cur")); return ;;
    --net) COMPREPLY=($(compgen -W 'host none' -- "$cur")); return ;;
    --root | --upper | --cache-dir | --tmp-dir) _filedir -d; return ;;
    --options | --image | --env | --volume | --user | --name | --content | --boot-id | --max-size | --max | --min-free | --older-than | --over | --watch | --origin | --mirror | --erofs-options | --timeout | --request-timeout | --fetch-size | --readahead-max | \
      --daemon-flag | --fetcher-flag | --s3-endpoint | --s3-region | --s3-profile) return ;;
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$(_holdfast_options "$verb")" -- "$cur"))
  elif [[ -z $verb ]]; then
    COMPREPLY=($(compgen -W 'mount mount-erofs umount mounts status cache config metrics trace report start stop dump verify image rootfs run cachefiles-run upgrade supervise version' -- "$cur"))
  elif [[ $verb == umount || $verb == mounts || $verb == verify || $verb == report || $verb == cache\ pin || $verb == cache\ unpin || $verb == cache\ rm ]]; then
    local point
    while IFS= read -r point; do
      [[ -n $point && $point == "$cur"* ]] && COMPREPLY+=("$(printf '%q' "$point")")
    done < <(_holdfast_mounts)
  elif [[ $verb == rootfs\ rm || $verb == rootfs\ mount ]]; then
    COMPREPLY=($(compgen -W "$(holdfast rootfs list 2>/dev/null | awk '{ print $1 }')" -- "$cur"))
  elif [[ $verb == cache ]]; then
    COMPREPLY=($(compgen -W 'ls limit pin unpin rm prune' -- "$cur"))
  elif [[ $verb == config ]]; then
    COMPREPLY=($(compgen -W 'check show write' -- "$cur"))
  elif [[ $verb == image ]]; then
    COMPREPLY=($(compgen -W 'build push inspect' -- "$cur"))
  elif [[ $verb == trace ]]; then
    COMPREPLY=($(compgen -W 'slow' -- "$cur"))
  elif [[ $verb == rootfs ]]; then
    COMPREPLY=($(compgen -W 'create mount rm list' -- "$cur"))
  elif [[ $verb == mount || $verb == mount-erofs || $verb == image\ push || $verb == image\ inspect ]]; then
    _filedir -d
  elif [[ $verb == image\ build ]]; then
    _filedir
  elif [[ $verb == cachefiles-run ]]; then
    COMPREPLY=($(compgen -c -- "$cur"))
  fi
}

complete -F _holdfast holdfast
