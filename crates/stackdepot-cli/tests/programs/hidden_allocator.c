/* Looks like a Rust program with its own jemalloc: the names are what tells. */
int rust_eh_personality;
static char pool[64];

void *_rjem_malloc(unsigned long size) { return size <= sizeof pool ? pool : 0; }

int main(void) { return _rjem_malloc(8) != pool; }
