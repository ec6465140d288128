/* Another of the files in which time says what runs: data of the first holds what is here. */
void far(void) { asm volatile("" : : "i"(1)); }
