# fish completion for holdfast(1).

# The options of a verb, in the order of its --help.
function __holdfast_options
  switch $argv[1]
    case mount; echo "--help --origin --as --partition --offset --verify --merkle --identity --renew --erofs-options --suid --dev --timeout
                 --persist --json --quiet --ca-file
                 --client-cert --client-key --headers-file --s3-endpoint --s3-region --s3-profile --s3-path-style
                 --auth-file --plain-http --mirror --instance --root --cache-dir
                 --request-timeout --detach-policy --on-full --cache-max --cache-min-free --fetch-size --readahead-max --fetch-exact
                 --watchdog --no-spare --fetcher-user --metrics-listen --daemon-flag --fetcher-flag"
    case mount-erofs; echo "--help --options --timeout --json --instance --root"
    case umount; echo "--help --keep --lazy --force --keep-persistent --timeout --instance --root --json"
    case mounts; echo "--help --restore --until-mounted --unmount --json --timeout --instance --root"
    case status; echo "--help --json --check --watch --instance --root"
    case 'cache ls'; echo "--help --json --instance --root"
    case 'cache limit'; echo "--help --max --min-free --json --instance --root"
    case 'cache pin'; echo "--help --instance --root"
    case 'cache unpin'; echo "--help --instance --root"
    case 'cache rm'; echo "--help --bytes --json --timeout --instance --root"
    case 'cache prune'; echo "--help --older-than --dry-run --json --timeout --instance --root"
    case 'config check'; echo "--help --instance --root"
    case 'config show'; echo "--help --json --instance --root"
    case 'config write'; echo "--help --instance --root"
    case metrics; echo "--help --output --instance --root"
    case report; echo "--help --output --instance --root"
    case 'trace slow'; echo "--help --over --json --instance --root"
    case start; echo "--help --cachefiles-device --cache-dir --timeout --instance --root"
    case stop; echo "--help --timeout --instance --root"
    case dump; echo "--help --cache-dir --instance --root"
    case verify; echo "--help --timeout --cache-dir --content --as-new-boot --boot-id --json --instance --root"
    case 'image build'; echo "--help --force --config --tmp-dir --max-size --json --auth-file --plain-http
                 --ca-file"
    case 'image push'; echo "--help --json --auth-file --plain-http --ca-file"
    case 'image inspect'; echo "--help --json --timeout --auth-file --plain-http --mirror --ca-file
                 --instance --root"
    case 'rootfs create'; echo "--help --image --upper --tmpfs --env --volume --user --net --timeout --auth-file
                 --plain-http --mirror --ca-file --instance --root"
    case 'rootfs mount'; echo "--help --timeout --instance --root"
    case 'rootfs rm'; echo "--help --force --timeout --instance --root"
    case 'rootfs list'; echo "--help --json --timeout --instance --root"
    case run; echo "--help --name --upper --tmpfs --env --volume --user --net --timeout --auth-file
                 --plain-http --mirror --ca-file --instance --root"
    case cachefiles-run; echo "--help --static --exact-ids --cachefiles-device"
    case upgrade; echo "--help --timeout --instance --root"
    case supervise; echo "--help --fetcher-user --metrics-listen --cachefiles-device --no-standby --can-exchange --instance --root"
    case version; echo "--help"
    case cache config image rootfs trace; echo "--help"
    case '*'; echo "--help --version"
  end
end

function __holdfast_instances
  set -l directory (string trim --right --chars=/ -- "$HOLDFAST_ROOT")
  command ls -1 "$directory/run/holdfast" "$directory/var/lib/holdfast" 2>/dev/null | string match --invert --regex '[:/]'
end

# The mount points on record.
function __holdfast_mounts
  set -l directory (string trim --right --chars=/ -- "$HOLDFAST_ROOT")
  set -l files $directory/run/holdfast/*/mounts/*.json
  test -n "$files"; and sed -n 's/.*"mount_point":"\([^"]*\)".*/\1/p' $files 2>/dev/null
end

# The verb that is typed, of two words where it has a second one.
function __holdfast_verb
  set -l verb
  for word in (commandline --cut-at-cursor --tokenize --current-process)[2..-1]
    if string match --quiet -- '-*' $word
      test -n "$verb"; and break
    else if test -z "$verb"
      set verb $word
      contains -- $verb cache config image rootfs trace; or break
    else
      set verb "$verb $word"
      break
    end
  end
  echo $verb
end

function __holdfast_complete
  set -l verb (__holdfast_verb)
  set -l current (commandline --current-token)
  set -l words (commandline --cut-at-cursor --tokenize --current-process)
  set -l before ''
  set -l previous $words[-1]
  if string match --quiet -- '--*=*' $current
    set previous (string replace --regex '=.*' '' -- $current)
    set before $previous=
  end
  switch $previous
    case --as; printf '%s\n' $before{auto,erofs,squashfs,ext4,xfs,btrfs,iso9660,cramfs,file}; return
    case --detach-policy; printf '%s\n' $before{hold,fail}; return
    case --on-full; printf '%s\n' $before{wait,through}; return
    case --identity; printf '%s\n' $before{query,path}; return
    case --net; printf '%s\n' $before{host,none}; return
    case --instance; printf '%s\n' $before(__holdfast_instances); return
    case --cachefiles-device --ca-file --client-cert --client-key --headers-file --auth-file --config --output
      __fish_complete_path $current; return
    case --root --upper --cache-dir --tmp-dir
      __fish_complete_directories $current; return
    case --options --image --env --volume --user --name --content --boot-id --max-size --max --min-free --older-than --over --watch --origin --mirror --erofs-options --timeout --request-timeout --fetch-size --readahead-max --daemon-flag --fetcher-flag --s3-endpoint --s3-region --s3-profile
      return
  end
  if string match --quiet -- '-*' $current
    string split --no-empty ' ' -- (__holdfast_options $verb | string replace --all --regex '\s+' ' ')
    return
  end
  switch $verb
    case ''; printf '%s\n' mount mount-erofs umount mounts status cache config metrics trace report start stop dump verify image rootfs run cachefiles-run upgrade supervise version
    case umount mounts verify report 'cache pin' 'cache unpin' 'cache rm'; __holdfast_mounts
    case 'rootfs rm' 'rootfs mount'; holdfast rootfs list 2>/dev/null | awk '{ print $1 }'
    case cache; printf '%s\n' ls limit pin unpin rm prune
    case config; printf '%s\n' check show write
    case image; printf '%s\n' build push inspect
    case trace; echo slow
    case rootfs; printf '%s\n' create mount rm list
    case mount mount-erofs 'image push' 'image inspect'; __fish_complete_directories $current
    case 'image build'; __fish_complete_path $current
    case cachefiles-run; __fish_complete_command
  end
end

complete --command holdfast --no-files --arguments '(__holdfast_complete)'
