/* A disk that fails: LD_PRELOAD this library, and chosen calls on files below one folder fail (tests/faults/test_disk.py).

   Environment, read at start and again by fault_arm():
     FAULT_ROOT   folder whose files are watched; nothing is watched without it
     FAULT_LOG    file outside it, of LOG_BYTES zeros, that gets the number of bytes written and then a line for each
                  watched call: group, result, inode, path; a map, since no limit of a file's size holds for it
     FAULT_CALLS  groups that count: write, sync, rename, truncate, create, or several with commas
     FAULT_FROM   first call of these groups that fails, from 1; 0 for none
     FAULT_SHORT  1: that call writes half of what it was given, and those after it fail
     FAULT_COUNT  how many calls fail
     FAULT_ERROR  errno of a failing call
   Calls go straight to the kernel, so that the library needs nothing of the one that it stands before. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PASS, FAIL, SHORTEN, LOG_BYTES = 16 << 20 };

struct log { atomic_long used; char text[LOG_BYTES - sizeof(atomic_long)]; };

static char root[PATH_MAX], calls[128];
static long from, count, shorten;
static int error_number;
static atomic_long num_calls;
static struct log *notes;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

__attribute__((constructor)) void fault_arm(void) {
    snprintf(root, sizeof root, "%s", setting("FAULT_ROOT"));
    snprintf(calls, sizeof calls, ",%s,", setting("FAULT_CALLS"));
    from = atol(setting("FAULT_FROM"));
    count = atol(setting("FAULT_COUNT"));
    shorten = atol(setting("FAULT_SHORT"));
    error_number = atoi(setting("FAULT_ERROR"));
    atomic_store(&num_calls, 0);
    notes = NULL;
    if (!root[0]) return;
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, setting("FAULT_LOG"), O_RDWR | O_CLOEXEC);
    notes = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (notes == MAP_FAILED) abort();
    syscall(SYS_close, descriptor);
}

static int below(const char *path) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

/* Whether the path, made absolute, is watched. */
static int watched_path(int folder, const char *path, char *absolute) {
    if (!root[0]) return 0;
    if (path[0] == '/') snprintf(absolute, PATH_MAX, "%s", path);
    else {
        char base[PATH_MAX / 2] = "", link[64];
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        if (syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1) < 0) return 0;
        snprintf(absolute, PATH_MAX, "%.2000s/%.2000s", base, path);
    }
    return below(absolute);
}

static int watched(int descriptor, char *path) {
    char link[64];
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int verdict(const char *group) {
    char name[32];
    snprintf(name, sizeof name, ",%s,", group);
    if (!from || !strstr(calls, name)) return PASS;
    long place = atomic_fetch_add(&num_calls, 1) + 1 - from;
    if (shorten && place == 0) return SHORTEN;
    return place >= shorten && place < shorten + count ? FAIL : PASS;
}

static void note(const char *group, const char *result, unsigned long inode, const char *path) {
    char line[PATH_MAX + 128];
    int kept = errno;
    int length = snprintf(line, sizeof line, "%s\t%s\t%lu\t%s\n", group, result, inode, path);
    long place = atomic_fetch_add(&notes->used, length);
    if (place + length > (long)sizeof notes->text) abort();
    memcpy(notes->text + place, line, length);
    errno = kept;
}

static unsigned long inode_of(int descriptor) {
    struct stat found;
    return fstat(descriptor, &found) ? 0 : (unsigned long)found.st_ino;
}

static unsigned long inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) ? 0 : (unsigned long)found.st_ino;
}

/* What a call by path gives: its own result, or the fault's. */
#define BY_PATH(group, folder, path, ...)                                   \
    char absolute[PATH_MAX];                                                \
    if (!watched_path(folder, path, absolute)) return (__VA_ARGS__);        \
    if (verdict(group) != PASS) {                                           \
        note(group, "failed", 0, absolute);                                 \
        errno = error_number;                                               \
        return -1;                                                          \
    }                                                                       \
    long result = (__VA_ARGS__);                                            \
    note(group, result < 0 ? "refused" : "done", inode_at(absolute), absolute);              \
    return result

/* The same for a call by descriptor, where size is what half of is written when it is short. */
#define BY_DESCRIPTOR(group, descriptor, size, ...)                         \
    char path[PATH_MAX];                                                    \
    if (!watched(descriptor, path)) return (__VA_ARGS__);                   \
    int found = verdict(group);                                             \
    if (found == FAIL) {                                                    \
        note(group, "failed", inode_of(descriptor), path);                  \
        errno = error_number;                                               \
        return -1;                                                          \
    }                                                                       \
    if (found == SHORTEN && (size) > 1) size = (size) / 2;                  \
    long result = (__VA_ARGS__);                                            \
    note(group, result < 0 ? "refused" : found == SHORTEN ? "short" : "done", inode_of(descriptor), path); \
    return result

ssize_t write(int fd, const void *data, size_t size) {
    BY_DESCRIPTOR("write", fd, size, syscall(SYS_write, fd, data, size));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    BY_DESCRIPTOR("write", fd, size, syscall(SYS_pwrite64, fd, data, size, at));
}

/* Of several parts a short call writes half of the parts, or half of the only one. */
static ssize_t write_parts(int fd, const struct iovec *parts, int number, off_t at) {
    struct iovec first = parts[0];
    size_t *size = &first.iov_len, half = 2;
    if (number > 1) {
        half = (size_t)number;
        BY_DESCRIPTOR("write", fd, half, at < 0 ? syscall(SYS_writev, fd, parts, half)
                                                : syscall(SYS_pwritev, fd, parts, half, at, 0L));
    }
    BY_DESCRIPTOR("write", fd, *size, at < 0 ? syscall(SYS_writev, fd, &first, 1)
                                             : syscall(SYS_pwritev, fd, &first, 1, at, 0L));
}

ssize_t writev(int fd, const struct iovec *parts, int number) { return write_parts(fd, parts, number, -1); }

ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t at) { return write_parts(fd, parts, number, at); }

ssize_t pwritev2(int fd, const struct iovec *parts, int number, off_t at, int flags) {
    (void)flags;
    return write_parts(fd, parts, number, at);
}

ssize_t copy_file_range(int in, off64_t *from_at, int fd, off64_t *to_at, size_t size, unsigned flags) {
    BY_DESCRIPTOR("write", fd, size, syscall(SYS_copy_file_range, in, from_at, fd, to_at, size, flags));
}

ssize_t sendfile(int fd, int in, off_t *at, size_t size) {
    BY_DESCRIPTOR("write", fd, size, syscall(SYS_sendfile, fd, in, at, size));
}

int fsync(int fd) {
    size_t whole = 0;
    BY_DESCRIPTOR("sync", fd, whole, syscall(SYS_fsync, fd));
}

int fdatasync(int fd) {
    size_t whole = 0;
    BY_DESCRIPTOR("sync", fd, whole, syscall(SYS_fdatasync, fd));
}

int ftruncate(int fd, off_t size) {
    off_t whole = 0;
    BY_DESCRIPTOR("truncate", fd, whole, syscall(SYS_ftruncate, fd, size));
}

static int allocate(int fd, int mode, off_t at, off_t size) {
    off_t whole = 0;
    BY_DESCRIPTOR("truncate", fd, whole, syscall(SYS_fallocate, fd, mode, at, size));
}

int fallocate(int fd, int mode, off_t at, off_t size) { return allocate(fd, mode, at, size); }

int posix_fallocate(int fd, off_t at, off_t size) { return allocate(fd, 0, at, size) < 0 ? errno : 0; }

int renameat(int old_folder, const char *old, int folder, const char *path) {
    BY_PATH("rename", folder, path, syscall(SYS_renameat2, old_folder, old, folder, path, 0));
}

int rename(const char *old, const char *path) { return renameat(AT_FDCWD, old, AT_FDCWD, path); }

int linkat(int old_folder, const char *old, int folder, const char *path, int flags) {
    BY_PATH("create", folder, path, syscall(SYS_linkat, old_folder, old, folder, path, flags));
}

int link(const char *old, const char *path) { return linkat(AT_FDCWD, old, AT_FDCWD, path, 0); }

int mkdirat(int folder, const char *path, mode_t mode) {
    struct stat found;
    if (!syscall(SYS_newfstatat, folder, path, &found, 0)) return syscall(SYS_mkdirat, folder, path, mode);  /* EEXIST */
    BY_PATH("create", folder, path, syscall(SYS_mkdirat, folder, path, mode));
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    if (!(flags & O_CREAT)) return syscall(SYS_openat, folder, path, flags, mode);
    BY_PATH("create", folder, path, syscall(SYS_openat, folder, path, flags, mode));
}

#define MODE(last)                                             \
    va_list rest;                                              \
    va_start(rest, last);                                      \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
    va_end(rest)

int open(const char *path, int flags, ...) {
    MODE(flags);
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    MODE(flags);
    return open_at(folder, path, flags, mode);
}

/* The names that a program built for large files calls. */
ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));
ssize_t pwritev64(int, const struct iovec *, int, off_t) __attribute__((alias("pwritev")));
ssize_t pwritev64v2(int, const struct iovec *, int, off_t, int) __attribute__((alias("pwritev2")));
ssize_t sendfile64(int, int, off_t *, size_t) __attribute__((alias("sendfile")));
int ftruncate64(int, off_t) __attribute__((alias("ftruncate")));
int fallocate64(int, int, off_t, off_t) __attribute__((alias("fallocate")));
int posix_fallocate64(int, off_t, off_t) __attribute__((alias("posix_fallocate")));
int open64(const char *, int, ...) __attribute__((alias("open")));
int openat64(int, const char *, int, ...) __attribute__((alias("openat")));
