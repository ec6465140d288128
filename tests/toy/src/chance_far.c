/* Another of the files in which time says what runs: data of the first holds what is here, and code hands it on. */
void far(void) { asm volatile("" : : "i"(1)); }
void beyond(void) { asm volatile("" : : "i"(2)); }

/* Ran in boot. */
void name_it(void) { asm volatile("" : : "i"(3)); }

/* As of kernel/workqueue.c, which keeps none of it by chance. */
void queue_work_on(int cpu, void *work) { asm volatile("" : : "r"(cpu), "r"(work)); }
