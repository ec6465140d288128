/* More sections than 16 bits can count (gABI: SHN_XINDEX), as vmlinux.o of a kernel with IBT and DWARF may have. */
#include "toy.h"

asm(".macro one\n"
    ".section .text.many\\@,\"ax\",@progbits\n"
    ".globl many\\@\n"
    ".type many\\@, @function\n"
    "many\\@: ret\n"
    ".size many\\@, . - many\\@\n"
    ".endm\n"
    ".rept 66000\n"
    "one\n"
    ".endr\n"
    ".text\n");

void many7(void);
void many65998(void);
void many65999(void);

void many_user(int argc)
{
	many7();
	many65998();
	if (argc > 1)
		many65999();
}
