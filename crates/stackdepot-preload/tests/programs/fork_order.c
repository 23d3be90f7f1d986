/* Allocates once at each of 16 sites, forks, and lets the child do the same in the other order. All
 * sites are called by the same instruction, so that the child's stacks are those of its parent. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEEP(value) __asm__ volatile("" : : "r"(value) : "memory")
#define SITE(n)                                                       \
    static __attribute__((noinline, noclone)) void site_##n(void)     \
    {                                                                 \
        void *block = malloc(1000 + n);                               \
        KEEP(block);                                                  \
    }
SITE(0) SITE(1) SITE(2) SITE(3) SITE(4) SITE(5) SITE(6) SITE(7)
SITE(8) SITE(9) SITE(10) SITE(11) SITE(12) SITE(13) SITE(14) SITE(15)

static void (*const sites[16])(void) = {
    site_0, site_1, site_2,  site_3,  site_4,  site_5,  site_6,  site_7,
    site_8, site_9, site_10, site_11, site_12, site_13, site_14, site_15,
};

int main(void)
{
    int status = 0;
    /* Volatile: one copy of the loop's body. */
    for (volatile int round = 0; round < 2; round++) {
        if (round == 1) {
            pid_t child = fork();
            if (child != 0)
                return waitpid(child, &status, 0) == child ? WEXITSTATUS(status) : 1;
        }
        for (int step = 0; step < 16; step++)
            sites[round == 0 ? step : 15 - step]();
    }
    return 0;
}
