"""One virtual machine: QEMU, its sockets, the gdbstub."""
