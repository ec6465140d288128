/* A kernel in small, for the reasoning about what a function tracer cannot see. */
#define __init __attribute__((section(".init.text"), noinline))
#define HERE __attribute__((noinline))
#define BODY(n) asm volatile("" : : "i"(n))

typedef void (*function)(void);
struct driver { function probe, shutdown; };

HERE void notrace_far(void) { BODY(1); }
HERE void reported_if_called(void) { BODY(2); }
HERE void notrace_leaf(void) { notrace_far(); BODY(3); reported_if_called(); BODY(3); }
HERE void notrace_cold(void) { BODY(4); }
HERE void cold(void) { notrace_cold(); BODY(5); }
HERE void cold_branch(void) { BODY(6); }
HERE void first_use(void) { BODY(6); }
HERE void early_helper(void) { BODY(7); }
HERE void early_callback(void) { BODY(8); }
HERE void early_probe(void) { BODY(9); }
HERE void quiet_step(void) { BODY(10); }
HERE void toy_shutdown(void) { quiet_step(); BODY(10); }
HERE void toy_probe(void) { BODY(11); }
HERE void unused_shutdown(void) { BODY(12); }
HERE void boot_only(void) { BODY(13); }
HERE void notrace_initcall_leaf(void) { BODY(14); }
HERE void on_reboot(void) { BODY(15); }

struct driver early_driver = { early_probe, 0 };
struct driver toy_driver = { toy_probe, toy_shutdown };
struct driver unused_driver = { 0, unused_shutdown };
volatile function sink;

/* Ran early, and was reported later as well. */
HERE void worker(void)
{
	sink = toy_driver.probe;
	if (sink)
		first_use();
	BODY(16);
}

/* Also reported, and no __init code calls it. */
HERE void later(void) { notrace_leaf(); if (sink) cold_branch(); BODY(16); }
HERE void between(void) { later(); BODY(16); }

static void __init first(void) { BODY(17); early_helper(); BODY(17); }
static void __init second(void) { sink = early_callback; sink = early_driver.probe; BODY(18); }
void __init start_kernel(void) { first(); second(); worker(); between(); BODY(19); }
void __init late_init(void) { boot_only(); BODY(20); }
void __init notrace_init(void) { notrace_initcall_leaf(); BODY(21); }
void kernel_power_off(void) { on_reboot(); BODY(22); }

/* As the kernel lists them: relative to the entry. */
asm(".pushsection .initcall6.init, \"a\"\n.long late_init - .\n.long notrace_init - .\n.popsection");
