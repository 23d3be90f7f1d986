// Frees twice with operator delete what operator new[] gave.
#include <cstdio>
#include <new>

extern "C" __attribute__((noinline)) void *make_array() { void *block = operator new[](123); __asm__ volatile("" : "+r"(block)); return block; }
extern "C" __attribute__((noinline)) void take_one(void *block) { operator delete(block); __asm__ volatile("" ::: "memory"); }

int main() {
	setvbuf(stdout, nullptr, _IONBF, 0);
	for (volatile int i = 0; i < 2; i = i + 1) {
		void *volatile block = make_array();
		std::printf("%p\n", block);
		take_one(block);
	}
}
