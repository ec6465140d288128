/* Timers in small: what is set up, by whom, and what it calls (include/linux/timer.h). */
#define HERE __attribute__((noinline))
#define BODY(n) asm volatile("" : : "i"(n))

struct timer { void (*function)(struct timer *); unsigned flags; };
struct work { struct timer timer; void (*work)(struct work *); };
volatile int sink;

HERE void init_timer_key(struct timer *timer, void (*function)(struct timer *), unsigned flags)
{
	timer->function = function;
	timer->flags = flags;
}

HERE void fourth(void) { BODY(4); }
HERE void third(void) { fourth(); BODY(3); }
HERE void second(void) { third(); BODY(2); }
HERE void hot_callee(void) { third(); BODY(1); }
HERE void first(void) { second(); hot_callee(); BODY(1); }
HERE void goes_off(struct timer *timer) { first(); sink = timer->flags; }
HERE void runs_late(struct work *work) { BODY(5); sink = work->timer.flags; }
HERE void delayed(struct timer *timer) { BODY(6); sink = timer->flags; }
HERE void cold_timer(struct timer *timer) { BODY(7); sink = timer->flags; }

void sets_up(struct timer *timer, struct work *work)
{
	init_timer_key(timer, goes_off, 0);
	work->work = runs_late;
	init_timer_key(&work->timer, delayed, 0x200000);
	BODY(8);
}
void cold(struct timer *timer) { init_timer_key(timer, cold_timer, 0); BODY(9); }
