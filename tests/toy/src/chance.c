/* A file in which time says what runs, in small (kernel/workqueue.c, net/ipv4/arp.c). */
#define HERE __attribute__((noinline))
#define BODY(n) asm volatile("" : : "i"(n))

struct ops { void (*solicit)(void); void (*report)(void); void (*far)(void); };
extern void elsewhere(void), far(void), beyond(void), name_it(void);
extern void hash(void (*check)(void));
extern void call_rcu(void (*wake)(void));
struct work { void (*work)(void); };
extern void queue_work_on(int cpu, struct work *work);
volatile int busy;

HERE void further(void) { BODY(1); }
HERE void wakeme(void) { BODY(15); }
HERE void starts_thread(void) { BODY(17); }
HERE void works(void) { starts_thread(); BODY(18); }
struct work declared = { works };
HERE void create(void)
{
	further();
	call_rcu(wakeme);
	queue_work_on(1, &declared);
	asm volatile(".skip 32, 0x90");
}
HERE void behind(void) { further(); BODY(13); asm volatile(".skip 32, 0x90"); }
HERE void way(void) { behind(); }
HERE void solicit(void) { BODY(3); }
HERE void report(void) { BODY(4); }
HERE void behind_it(void) { BODY(20); }
HERE void ran_in_boot(void) { behind_it(); name_it(); asm volatile(".skip 64, 0x90"); }
HERE void ran_in_boot_too(void) { BODY(11); }
/* Listed by its name. */
HERE void lapic_timer_set_oneshot(void) { ran_in_boot_too(); BODY(21); }
HERE void early(void) { ran_in_boot_too(); BODY(12); }
/* In tables of another file. */
HERE static void ipv4_negative_advice(void) { BODY(16); }
HERE void handed(void) { BODY(14); }
HERE void not_held(void) { BODY(5); }
HERE void cold_callee(void) { BODY(6); }
HERE void calibrate(void) { BODY(22); }
const struct ops ops = { solicit, report, far };
const struct ops others = { not_held, ipv4_negative_advice, not_held };

void worker(const struct ops **with)
{
	*with = &ops;
	if (busy)
		create();
	if (busy > 3)
		way();
	if (busy > 1)
		elsewhere();
	if (busy > 2)
		ran_in_boot();
	hash(handed);
	hash(beyond);
	BODY(7);
}
void cold(const struct ops **with) { *with = &others; cold_callee(); BODY(8); }
__attribute__((section(".init.text"))) void starts(void) { calibrate(); hash(early); BODY(9); }
