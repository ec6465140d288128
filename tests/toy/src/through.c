/* What is called through pointers, in small: fs/ext4/namei.c, fs/proc/base.c, mm/mmap.c, net/core/rtnetlink.c. */
#define HERE __attribute__((noinline))
#define BODY(n) asm volatile("" : : "i"(n))

struct ops { void (*one)(void); void (*two)(void); void (*three)(void); };

HERE void by_lookup(void) { BODY(100); } /* is gone, too */
HERE void toy_lookup(void) { by_lookup(); BODY(101); } /* stays */
HERE void toy_unlink(void) { BODY(102); }
HERE void toy_permission(void) { BODY(103); }
HERE void toy_get_link(void) { BODY(104); }
HERE void toy_fault(void) { BODY(105); }
HERE void toy_mmap(void) { BODY(106); }
HERE void toy_read(void) { BODY(107); }
HERE void arch_get_unmapped_area(void) { BODY(108); }
HERE void toy_rtm_newaddr(void) { BODY(109); }
HERE void other_unlink(void) { BODY(110); } /* of a table of another kind */
HERE void toy_newlink(void) { BODY(111); }

const struct ops toy_dir_inode_operations = { toy_lookup, toy_unlink, toy_permission };
const struct ops toy_symlink_inode_operations = { toy_get_link };
const struct ops toy_vm_ops = { toy_fault };
const struct ops toy_file_operations = { toy_mmap, toy_read };
const struct ops toy_pool = { other_unlink };
struct ops toy_link_ops = { toy_newlink };
struct ops mm, links;

void _start(void)
{
	mm.one = arch_get_unmapped_area;
	links.one = toy_rtm_newaddr;
}
