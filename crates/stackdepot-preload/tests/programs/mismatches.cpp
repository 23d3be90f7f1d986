// Blocks freed by functions of another family: five that are wrong, and every form that is right.
#include <cstdio>
#include <cstdlib>
#include <new>

static void *volatile kept;

template <class T> static T *hide(T *block) {
  kept = block;
  return static_cast<T *>(kept);
}

__attribute__((noinline)) static void new_array_deleted() {
  operator delete(hide(operator new[](101)));
}

__attribute__((noinline)) static void new_freed() {
  free(hide(operator new(102)));
}

__attribute__((noinline)) static void malloc_deleted() {
  operator delete(hide(malloc(103)));
}

__attribute__((noinline)) static void calloc_deleted_as_array() {
  operator delete[](hide(calloc(1, 104)));
}

__attribute__((noinline)) static void new_reallocated() {
  free(hide(realloc(hide(operator new(105)), 1000)));
}

static void right_forms() {
  constexpr std::align_val_t align{64};
  operator delete(hide(operator new(10)));
  operator delete(hide(operator new(10)), std::size_t{10});
  operator delete(hide(operator new(10, std::nothrow)), std::nothrow);
  operator delete(hide(operator new(10, align)), align);
  operator delete(hide(operator new(10, align)), std::size_t{10}, align);
  operator delete[](hide(operator new[](10)));
  operator delete[](hide(operator new[](10)), std::size_t{10});
  operator delete[](hide(operator new[](10, std::nothrow)), std::nothrow);
  operator delete[](hide(operator new[](10, align)), align);
  operator delete[](hide(operator new[](10, align)), std::size_t{10}, align);
  free(hide(aligned_alloc(64, 64)));
  void *block = nullptr;
  if (posix_memalign(&block, 64, 10) == 0) free(hide(block));
  free(hide(realloc(hide(malloc(10)), 100)));
}

int main() {
  setvbuf(stdout, nullptr, _IONBF, 0);
  right_forms();
  new_array_deleted();
  new_freed();
  malloc_deleted();
  calloc_deleted_as_array();
  new_reallocated();
  right_forms();
  puts("done");
}
