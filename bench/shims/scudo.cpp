// Scudo's stack depot behind two C functions. Its header comes with the crate `scudo-sys`.
#include <stdint.h>

#include "stack_depot.h"

namespace {
scudo::StackDepot depot;
}

extern "C" uint32_t bench_scudo_insert(scudo::uptr *begin, scudo::uptr *end)
{
	return depot.insert(begin, end);
}

/* Copies a stack out; 0 when it was overwritten. */
extern "C" uint32_t bench_scudo_find(uint32_t handle, uint64_t *out, uint32_t most)
{
	scudo::uptr place, count;

	if (!depot.find(handle, &place, &count) || count > most)
		return 0;
	for (scudo::uptr i = 0; i != count; i++)
		out[i] = depot[place + i];
	return (uint32_t)count;
}
