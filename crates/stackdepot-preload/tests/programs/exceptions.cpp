// operator new throws bad_alloc 1000 times through the hook, and every other form works.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>

struct alignas(64) Wide { char bytes[128]; };
static volatile size_t huge = SIZE_MAX / 4;

int main() {
  setvbuf(stdout, nullptr, _IONBF, 0);
  int caught = 0;
  for (int i = 0; i < 1000; i++) {
    try {
      char *volatile p = new char[huge];
      std::printf("got %p\n", (void *)p);
    } catch (const std::bad_alloc &) {
      caught++;
    }
    // Between the throws ordinary blocks come and go.
    int *volatile q = new int(i);
    delete q;
  }
  std::printf("caught %d\n", caught);
  std::printf("nothrow %d\n", new (std::nothrow) char[huge] == nullptr);
  Wide *w = new Wide;
  std::printf("aligned %d\n", (int)((uintptr_t)w % 64));
  delete w;
  Wide *a = new Wide[3];
  delete[] a;
  Wide *n = new (std::nothrow) Wide;
  delete n;
  ::operator delete(::operator new(100), (size_t)100);
  ::operator delete[](::operator new[](100), (size_t)100);
  ::operator delete(::operator new(100, std::align_val_t(128)), std::align_val_t(128));
  ::operator delete(::operator new(100, std::nothrow), std::nothrow);
  try {
    ::operator new(huge, std::align_val_t(64));
  } catch (const std::bad_alloc &) {
    std::printf("aligned throws\n");
  }
  std::set_new_handler([] {
    static int calls = 0;
    std::free(std::malloc(50));
    if (++calls == 3) std::set_new_handler(nullptr);
  });
  try {
    ::operator new(huge);
  } catch (const std::bad_alloc &) {
    std::printf("handler gave up\n");
  }
  return 5;
}
