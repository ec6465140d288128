/* As arch/x86/entry/entry.S has it since 6.9. */
void warn_thunk_thunk(void);
__attribute__((section(".noinstr.text"))) void warn_thunk_thunk(void) { }
