#compdef holdfast
# zsh completion for holdfast(1).

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
  local directory=${HOLDFAST_ROOT%/} file
  for file in "$directory"/run/holdfast/*/mounts/*.json(N); do
    sed -n 's/.*"mount_point":"\([^"]*\)".*/\1/p' "$file" 2>/dev/null
  done
}

_holdfast() {
  local verb='' word
  local -i i
  for ((i = 2; i < CURRENT; ++i)); do
    word=$words[i]
    if [[ $word == -* ]]; then
      [[ -z $verb ]] && continue
      break
    elif [[ -z $verb ]]; then
      verb=$word
      [[ $verb == (cache|config|image|rootfs|trace) ]] || break
    else
      verb="$verb $word"
      break
    fi
  done
  local previous=$words[CURRENT-1] current=$words[CURRENT]
  if [[ $current == --*=* ]]; then
    previous=${current%%=*}
    compset -P '*='
  fi
  case $previous in
    --as) compadd auto erofs squashfs ext4 xfs btrfs iso9660 cramfs file; return ;;
    --detach-policy) compadd hold fail; return ;;
    --on-full) compadd wait through; return ;;
    --identity) compadd query path; return ;;
    --net) compadd host none; return ;;
    --instance) compadd -- ${(f)"$(_holdfast_instances)"}; return ;;
    --cachefiles-device | --ca-file | --client-cert | --client-key | --headers-file | --auth-file | --config | --output) _files; return ;;
    --root | --upper | --cache-dir | --tmp-dir) _files -/; return ;;
    --options | --image | --env | --volume | --user | --name | --content | --boot-id | --max-size | --max | --min-free | --older-than | --over | --watch | --origin | --mirror | --erofs-options | --timeout | --request-timeout | --fetch-size | --readahead-max | \
      --daemon-flag | --fetcher-flag | --s3-endpoint | --s3-region | --s3-profile) return ;;
  esac
  if [[ $current == -* ]]; then
    compadd -- $(_holdfast_options "$verb")
    return
  fi
  case $verb in
    '') compadd -- mount mount-erofs umount mounts status cache config metrics trace report start stop dump verify image rootfs run cachefiles-run upgrade supervise version ;;
    umount | mounts | verify | report | 'cache pin' | 'cache unpin' | 'cache rm') compadd -- ${(f)"$(_holdfast_mounts)"} ;;
    'rootfs rm' | 'rootfs mount') compadd -- ${(f)"$(holdfast rootfs list 2>/dev/null | awk '{ print $1 }')"} ;;
    cache) compadd ls limit pin unpin rm prune ;;
    config) compadd check show write ;;
    image) compadd build push inspect ;;
    trace) compadd slow ;;
    rootfs) compadd create mount rm list ;;
    mount | mount-erofs | 'image push' | 'image inspect') _files -/ ;;
    'image build') _files ;;
    cachefiles-run) _command_names ;;
  esac
}

if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
  _holdfast "$@"
else
  compdef _holdfast holdfast
fi
