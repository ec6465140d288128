/* Timers, RCU and work in small: what is handed on, by whom, and what it calls (include/linux/timer.h,
   rcupdate.h, workqueue.h). */
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

struct head { void (*function)(struct head *); };
HERE void call_rcu(struct head *head, void (*function)(struct head *)) { head->function = function; }
HERE void freed(struct head *head) { BODY(10); sink = head != 0; }
void frees(struct head *head) { call_rcu(head, freed); BODY(11); }

/* A softirq, which only init code names (include/linux/interrupt.h). */
void (*softirqs[2])(struct head *);
HERE void open_softirq(int number, void (*action)(struct head *)) { softirqs[number] = action; }
HERE void runs_softly(struct head *head) { BODY(12); sink = head != 0; }
void opens(void) { open_softirq(1, runs_softly); BODY(13); }

/* Another processor (include/linux/smp.h). */
HERE int smp_call_function_single(int cpu, void (*function)(struct head *), struct head *info, int wait)
{
	info[cpu].function = function;
	return wait;
}
HERE void elsewhere(struct head *info) { BODY(20); sink = info != 0; }
void asks(struct head *info) { sink = smp_call_function_single(1, elsewhere, info, 1); BODY(21); }

/* A constructor, the fifth argument (include/linux/slab.h). */
HERE long kmem_cache_create(const char *name, long size, long align, long flags, void (*ctor)(void *))
{
	ctor(0);
	return size + align + flags + (name != 0);
}
HERE void constructs(void *one) { BODY(22); sink = one != 0; }
void has_slabs(void) { sink = kmem_cache_create("slabs", 64, 8, 0x40000, constructs); BODY(23); }

/* A thread, the first argument (include/linux/kthread.h), which sleeps for two minutes at a time. */
HERE long kthread_create_on_node(int (*function)(void *), void *data, int node, const char *name)
{
	return function(data) + node + (name != 0);
}
HERE void looks_for_hung_tasks(void) { BODY(24); }
HERE int watches(void *data) { if (sink) looks_for_hung_tasks(); BODY(25); return data != 0; }
void has_threads(void) { sink = kthread_create_on_node(watches, 0, -1, "khungtaskd"); BODY(26); }

/* As inet_csk_init_xmit_timers: the caller says what goes off. */
HERE void passes_on(struct timer *timer, void (*one)(struct timer *), void (*two)(struct timer *))
{
	init_timer_key(timer, one, 0);
	init_timer_key(timer + 1, two, 0);
}
HERE void passed_one(struct timer *timer) { BODY(12); sink = timer->flags; }
HERE void passed_two(struct timer *timer) { BODY(13); sink = timer->flags; }
HERE void helper(struct timer *timer) { BODY(14); sink = timer->flags; }
void has_some(struct timer *timer) { helper(timer); passes_on(timer, passed_one, passed_two); BODY(15); }

HERE void works(struct work *work) { BODY(16); sink = work->timer.flags; }
HERE void later_on(struct work *work) { BODY(45); sink = work->timer.flags; }
HERE void never_queued(struct work *work) { BODY(17); sink = work->timer.flags; }
struct work declared = { .work = works };
struct work other = { .work = never_queued };
HERE int queue_work_on(int cpu, void *queue, struct work *work)
{
	BODY(18);
	return sink = cpu + (queue == work);
}
void queues(void *queue) { queue_work_on(1, queue, &declared); BODY(19); }

/* schedule_work, as compilers make one of it for a caller. */
struct work scheduled = { .work = later_on };
HERE int schedules(int cpu, void *queue) { return queue_work_on(cpu, queue, &scheduled); }
int has_it_scheduled(void *queue) { BODY(20); return schedules(1, queue) + 1; }

/* What gives memory back when it is short, in a variable and, for a file system, in a structure (include/linux/shrinker.h). */
struct shrinker { long (*count)(struct shrinker *); long (*scan)(struct shrinker *); long batch; };
HERE long counts(struct shrinker *one) { BODY(46); return one->batch; }
HERE long scans(struct shrinker *one) { BODY(47); return one->batch + 1; }
struct shrinker shrinks = { .count = counts, .scan = scans };
HERE int register_shrinker(struct shrinker *one, const char *name) { BODY(48); return sink = one->batch + (name != 0); }
int can_shrink(void) { BODY(49); return register_shrinker(&shrinks, "slots") + 1; }
HERE long counts_inodes(struct shrinker *one) { BODY(50); return one->batch; }
HERE long scans_inodes(struct shrinker *one) { BODY(51); return one->batch + 1; }
HERE int prealloc_shrinker(struct shrinker *one, const char *name) { BODY(52); return sink = one->batch + (name != 0); }
int has_inodes(struct shrinker *one)
{
	one->scan = scans_inodes;
	one->count = counts_inodes;
	one->batch = 1024;
	return prealloc_shrinker(one, "inodes") + 1;
}
HERE long counts_extents(struct shrinker *one) { BODY(53); return one->batch; }
HERE long scans_extents(struct shrinker *one) { BODY(54); return one->batch + 1; }
int has_extents(struct shrinker *one)
{
	one->scan = scans_extents;
	one->count = counts_extents;
	one->batch = 1024;
	return register_shrinker(one, "extents") + 1;
}

/* INIT_DELAYED_WORK: a timer that runs what was stored beside it; hrtimer_init: what is stored right behind. */
HERE void delayed_work_timer_fn(struct timer *timer) { BODY(40); sink = timer->flags; }
HERE void hrtimer_init(struct work *work, int clock) { BODY(41); sink = clock; work->timer.flags = clock; }
HERE void later(struct work *work) { BODY(42); sink = work->timer.flags; }
HERE void finer(struct work *work) { BODY(43); sink = work->timer.flags; }
HERE void nobodys(struct work *work) { BODY(44); sink = work->timer.flags; }

void has_work(struct work *work, struct work *other)
{
	work->work = later;
	init_timer_key(&work->timer, delayed_work_timer_fn, 0x200000);
	hrtimer_init(other, 1);
	other->work = finer;
	BODY(45);
	other[1].work = nobodys;
}
