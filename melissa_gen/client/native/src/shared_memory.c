#define _GNU_SOURCE /* memfd_create, seals */
#include "shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifdef MFD_ALLOW_SEALING

/* A number by which the server recognizes this memory: in another container, the same process number may belong to
 * another process. */
static int64_t new_nonce(const void *memory)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t mixed = (uint64_t)now.tv_nsec * 1000003U + (uint64_t)now.tv_sec;
    mixed = (mixed ^ (uint64_t)(uintptr_t)memory) * 0x9E3779B97F4A7C15U + (uint64_t)getpid();
    return (int64_t)(mixed >> 1);
}

/* A file above the limit on its size would end the process by SIGXFSZ. */
static bool exceeds_limit(size_t size)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < size;
}

bool shared_memory_open(struct shared_memory *shared, uint16_t count, size_t size)
{
    memset(shared, 0, sizeof *shared);
    shared->size = SHARED_ALIGNMENT + count * size;
    if (exceeds_limit(shared->size)) {
        errno = EFBIG;
        return false;
    }
    shared->descriptor = memfd_create("melissa_gen", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (shared->descriptor < 0)
        return false;
    int missing = posix_fallocate(shared->descriptor, 0, (off_t)shared->size);
    errno = missing;
    bool done = missing == 0 &&
                fcntl(shared->descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
    void *memory = !done ? MAP_FAILED
                         : mmap(NULL, shared->size, PROT_READ | PROT_WRITE, MAP_SHARED, shared->descriptor, 0);
    if (memory == MAP_FAILED) {
        int why = errno;
        close(shared->descriptor);
        errno = why;
        return false;
    }
    shared->memory = memory;
    shared->nonce = new_nonce(memory);
    for (int byte = 0; byte < 8; byte++)
        shared->memory[byte] = (unsigned char)((uint64_t)shared->nonce >> (8 * byte));
    return true;
}

void shared_memory_close(struct shared_memory *shared)
{
    if (shared->memory == NULL)
        return;
    munmap(shared->memory, shared->size);
    close(shared->descriptor);
    shared->memory = NULL;
}

#else

bool shared_memory_open(struct shared_memory *shared, uint16_t count, size_t size)
{
    (void)count;
    (void)size;
    memset(shared, 0, sizeof *shared);
    errno = ENOSYS;
    return false;
}

void shared_memory_close(struct shared_memory *shared)
{
    (void)shared;
}

#endif
