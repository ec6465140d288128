# What an init system has done by the time that anybody logs in; as often as one likes.
mkdir -p /dev/pts /dev/shm /home/user
grep -q ' /dev/pts ' /proc/mounts || mount -t devpts devpts /dev/pts
grep -q ' /dev/shm ' /proc/mounts || mount -t tmpfs tmpfs /dev/shm
ln -sfn /proc/self/fd /dev/fd
chown 1000:1000 /home/user
