#!/bin/bash
# Files on tmpfs, and every refusal that a file system has.
set -euo pipefail
. /root/system.sh
mkdir -p /tmp/files
mount -t tmpfs -o size=4m,nr_inodes=200 tmpfs /tmp/files
cd /tmp/files

refused() { ! "$@" 2>/dev/null || { echo "not refused: $*"; exit 1; }; }

head -c $((100000 + KPRUNE_SEED % 5000)) /dev/urandom >data
cp --sparse=always data sparse
truncate -s 1M sparse
fallocate -l 65536 allocated 2>/dev/null || busybox fallocate -l 65536 allocated
cp -a data archive
cmp data archive
dd if=data of=part bs=1k skip=3 seek=2 count=5 conv=notrunc,fsync status=none
install -m 4755 -o 1000 -g 1000 /bin/true program
stat -c '%a %u %s %h' program data
ln data hard
ln -s data soft
ln -s nowhere dangling
ln -s loop loop
readlink -f soft
mkdir -p a/b/c
touch -d '2020-02-02 02:02' a/b/c/old
find . -newer a/b/c/old -type f -size +1k -exec ls -l {} +
mv -n data a/data
mv a/data data
cp -r a copy
du -s .
df .
chmod -R u+rwX,go-rwx a
chown -R 1000:1000 a
tail -n 0 -f data >followed & tail=$!
echo more >>data
sleep 0.3
kill $tail; wait $tail || true
sync -f data
shred -u archive
python3 - <<'END'
import errno, fcntl, mmap, os, tempfile
with open("mapped", "w+b") as file:
    file.truncate(1 << 16)
    with mmap.mmap(file.fileno(), 0) as view:
        view[5000:5005] = b"hello"
        view.flush()
    file.seek(5000)
    assert file.read(5) == b"hello"
    os.pwritev(file.fileno(), [b"a", b"b"], 10)
    assert os.preadv(file.fileno(), [bytearray(1), bytearray(1)], 10) == 2
os.posix_fallocate(os.open("mapped", os.O_RDWR), 0, 1 << 17)
os.setxattr("mapped", "trusted.kprune", b"1")
assert os.listxattr("mapped") == ["trusted.kprune"]
os.removexattr("mapped", "trusted.kprune")
with tempfile.TemporaryFile(dir=".") as unnamed:
    unnamed.write(b"x" * 5000)
os.memfd_create("memory")
reading, writing = os.pipe()
source = os.open("mapped", os.O_RDONLY)
os.splice(source, writing, 4096)
os.copy_file_range(source, os.open("copied", os.O_CREAT | os.O_RDWR), 8192)
os.sendfile(os.open("sent", os.O_CREAT | os.O_RDWR), source, 0, 8192)
for name in os.scandir("."):
    name.stat(follow_symlinks=False)
with open("mapped", "rb+") as one, open("mapped", "rb+") as two:
    fcntl.flock(one, fcntl.LOCK_EX)
    fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)
    try:
        fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(one, fcntl.LOCK_UN)
    else:
        raise AssertionError("a lock was given twice")
os.mkfifo("fifo")
try:
    os.open("fifo", os.O_WRONLY | os.O_NONBLOCK)
except OSError as error:
    assert error.errno == errno.ENXIO
END
# Not there, there already, not empty, not a folder, a loop, too long, not ours, no room, read-only.
refused cat nothing
refused cat dangling
refused cat loop
refused mkdir a
refused rmdir a
refused cat data/x
refused ln data hard
refused touch "$(printf '%0300d' 0)"
refused setpriv --reuid=1000 --regid=1000 --clear-groups rm data
chmod 600 data
refused setpriv --reuid=1000 --regid=1000 --clear-groups cat data
refused setpriv --reuid=1000 --regid=1000 --clear-groups chown 0 a
refused dd if=/dev/zero of=full bs=64k status=none
rm full
refused bash -c 'for ((i = 0; i < 300; i++)); do : >n.$i || exit 1; done'
rm n.*
mount -o remount,ro /tmp/files
refused touch data
refused rm data
mount -o remount,rw /tmp/files
mkdir under
mount --bind a under
ls under/b/c
refused umount /tmp/files
umount under
cd /
umount /tmp/files
refused mount -t nosuchfs none /tmp/files
rmdir /tmp/files
