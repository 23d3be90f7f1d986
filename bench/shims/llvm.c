/*
 * LLVM's StackDepot behind two C functions. The library is built with hidden symbols, so these have
 * to live in the same shared object; a put is one tail call.
 */
#include <stdint.h>

/* As __sanitizer::StackTrace is passed: in two registers. */
struct trace {
	const uint64_t *frames;
	uint32_t count;
	uint32_t tag;
};

extern uint32_t put(struct trace) __asm__("_ZN11__sanitizer13StackDepotPutENS_10StackTraceE");
extern struct trace get(uint32_t) __asm__("_ZN11__sanitizer13StackDepotGetEj");
extern void init(void) __asm__("_ZN7__ubsan27InitAsStandaloneIfNecessaryEv");

static const char *options = "";

/* Called by the library when it reads its flags. */
__attribute__((visibility("hidden"))) const char *__ubsan_default_options(void)
{
	return options;
}

/* Once per process, before everything else. */
void bench_llvm_init(const char *flags)
{
	options = flags;
	init();
}

uint32_t bench_llvm_put(struct trace trace)
{
	return put(trace);
}

struct trace bench_llvm_get(uint32_t handle)
{
	return get(handle);
}
