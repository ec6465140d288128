/* Who holds a lock when, in small (kernel/locking/mutex.c; fs/namespace.c wraps its own). */
#define HERE __attribute__((noinline))
#define BODY(n) asm volatile("" : : "i"(n))
#define COLD(name) HERE void cold_##name(void) { BODY(__COUNTER__); }

#ifdef SHARED /* with assembly, which nobody takes apart */
asm(".pushsection .sched.text, \"ax\"\nby_hand: .skip 80, 0x90\n.popsection");
#define LOCK HERE __attribute__((section(".sched.text")))
#else
#define LOCK HERE
#endif

struct mutex { volatile int held; };
volatile int n;
struct mutex a, b;

LOCK void mutex_lock(struct mutex *lock) { lock->held = 1; BODY(1); }
LOCK int mutex_lock_interruptible(struct mutex *lock) { lock->held = 1; BODY(2); return n; }
LOCK void mutex_unlock(struct mutex *lock) { lock->held = 0; BODY(3); }
LOCK void _raw_spin_lock(struct mutex *lock) { lock->held = 1; BODY(4); }
#ifdef VISIBLE
LOCK void _raw_spin_unlock(struct mutex *lock) { lock->held = 0; BODY(19); }
#else
#define _raw_spin_unlock(lock) ((lock)->held = 0) /* a store, like any other */
#endif

COLD(before) COLD(under) COLD(after) COLD(tried) COLD(untried) COLD(wrapped) COLD(unwrapped) COLD(deep)
COLD(given_back) COLD(in_loop) COLD(behind_loop) COLD(case_1) COLD(case_2) COLD(case_3) COLD(case_4)
COLD(behind_switch) COLD(spinning) COLD(pointed) COLD(one_left) COLD(none_left) COLD(retaken) COLD(tail) COLD(spun)
COLD(free_1) COLD(free_2) COLD(free_3) COLD(free_4)
COLD(led_1) COLD(led_2) COLD(led_3) COLD(led_4)

void plain(void)
{
	cold_before();
	mutex_lock(&a);
	cold_under();
	mutex_unlock(&a);
	cold_after();
	BODY(5);
}
int tries(void)
{
	if (mutex_lock_interruptible(&a))
		return -4;
	cold_tried();
	mutex_unlock(&a);
	cold_untried();
	return 0;
}

/* As namespace_lock() and namespace_unlock(): the last thing that they do is a jump. */
HERE void take(void) { n = 1; mutex_lock(&a); }
HERE void give(void) { n = 2; mutex_unlock(&a); }
HERE void take_more(void) { n = 3; take(); BODY(6); }
void wraps(void)
{
	take_more();
	cold_wrapped();
	give();
	cold_unwrapped();
	BODY(7);
}
/* It takes by one wrapper and gives by the other: neither of the two. */
HERE void balanced(void) { take_more(); n = 4; give(); }
void uses_balanced(void) { balanced(); cold_none_left(); BODY(8); }

HERE void goes_deeper(void) { n = 5; cold_deep(); BODY(9); }
HERE void gives_back(void) { n = 6; mutex_unlock(&a); cold_given_back(); BODY(10); }
void deep(void)
{
	mutex_lock(&a);
	goes_deeper();
	gives_back();
	BODY(11);
}
/* As sk_wait_data(): what it was entered with is taken again before it returns. */
HERE void waits(void) { mutex_unlock(&a); n = 7; mutex_lock(&a); BODY(12); }
void waiting(void)
{
	mutex_lock(&a);
	waits();
	cold_retaken();
	mutex_unlock(&a);
	BODY(13);
}
void loops(void)
{
	for (int i = 0; i < n; i++) {
		mutex_lock(&a);
		if (n > 3)
			cold_in_loop();
		mutex_unlock(&a);
	}
	cold_behind_loop();
	BODY(14);
}
void two(void)
{
	mutex_lock(&a);
	mutex_lock(&b);
	mutex_unlock(&a);
	cold_one_left();
	mutex_unlock(&b);
	BODY(15);
}
void switches(void)
{
	mutex_lock(&a);
	switch (n) {
	case 1: cold_case_1(); break;
	case 2: cold_case_2(); n = 1; break;
	case 3: cold_case_3(); n = 2; break;
	case 4: cold_case_4(); n = 3; break;
	case 5: n = 9; break;
	case 6: n = 12; break;
	}
	mutex_unlock(&a);
	cold_behind_switch();
	BODY(16);
}
/* As an ioctl: a table leads to what takes a lock, and to much that does not. */
void chooses(void)
{
	switch (n) {
	case 1: cold_free_1(); break;
	case 2: cold_free_2(); n = 1; break;
	case 3: cold_free_3(); n = 2; break;
	case 4: cold_free_4(); n = 3; break;
	case 5: mutex_lock(&a); n = 9; mutex_unlock(&a); break;
	case 6: n = 12; break;
	}
	BODY(27);
}
/* As a compiler makes it that knows the number to be one of them: the function begins with the jump. */
HERE void chosen(void)
{
	switch (n) {
	case 0: cold_led_1(); break;
	case 1: cold_led_2(); n = 1; break;
	case 2: cold_led_3(); n = 2; break;
	case 3: cold_led_4(); n = 3; break;
	case 4: n = 9; break;
	case 5: n = 12; break;
	default: __builtin_unreachable();
	}
	BODY(28);
}
void chooses_under_it(void) { mutex_lock(&a); chosen(); mutex_unlock(&a); BODY(29); }
void spins(void)
{
	_raw_spin_lock(&b);
	cold_spinning();
	_raw_spin_unlock(&b);
	cold_spun();
	BODY(17);
}
void (*volatile pointer)(void) = cold_pointed;
void points(void)
{
	mutex_lock(&a);
	pointer();
	mutex_unlock(&a);
	BODY(18);
}
void ends_under_it(void) { mutex_lock(&a); cold_tail(); }
