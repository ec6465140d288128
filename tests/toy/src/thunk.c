/* As arch/x86/lib/retpoline.S has it with CONFIG_RETHUNK. */
asm(".section .noinstr.text, \"ax\"\n.globl __x86_return_thunk\n__x86_return_thunk: ret\nint3\n.previous\n");
