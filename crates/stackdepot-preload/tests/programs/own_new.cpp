// A program with an operator new of its own: the library's new[] is built on it, and nothing is wrong.
#include <cstdio>
#include <cstdlib>
#include <new>

void *operator new(std::size_t size) {
  void *block = malloc(size);
  if (!block) throw std::bad_alloc();
  return block;
}

void operator delete(void *block) noexcept { free(block); }
void operator delete(void *block, std::size_t) noexcept { free(block); }

int main() {
  setvbuf(stdout, nullptr, _IONBF, 0);
  for (int i = 0; i < 100; i++) {
    void *volatile one = operator new(10);
    void *volatile many = operator new[](20);
    void *volatile quiet = operator new[](30, std::nothrow);
    operator delete(one);
    operator delete[](many);
    operator delete[](quiet, std::nothrow);
  }
  puts("done");
}
