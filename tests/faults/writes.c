// Counts what a process and its children write below FAULT_FOLDER, and lets one of these calls fail.
//
// FAULT_COUNTER  a file of 8 bytes, shared by all processes: the number of calls so far
// FAULT_AT       the call that fails, from 1 on; 0 or unset: none
// FAULT_HOW      full: ENOSPC, from this call on. once: ENOSPC, this call alone. broken: EIO, this call alone.
//                kill: SIGKILL, with half of the bytes written.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int below(const char *path) {
    const char *folder = getenv("FAULT_FOLDER");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int file_below(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return below(path);
}

static long count(void) {
    const char *name = getenv("FAULT_COUNTER");
    if (!name) return 0;
    int file = open(name, O_RDWR);
    if (file < 0) return 0;
    long *shared = mmap(0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return 0;
    long now = __atomic_add_fetch(shared, 1, __ATOMIC_SEQ_CST);
    munmap(shared, 8);
    return now;
}

// 0: go on; 1: fail, errno is set; 2: be killed.
static int strikes(void) {
    const char *at = getenv("FAULT_AT"), *how = getenv("FAULT_HOW");
    int before = errno;
    long now = count(), when = at ? atol(at) : 0;
    errno = before;
    if (!when || !how || now < when) return 0;
    if (!strcmp(how, "full")) { errno = ENOSPC; return 1; }
    if (now > when) return 0;
    if (!strcmp(how, "kill")) return 2;
    errno = strcmp(how, "broken") ? ENOSPC : EIO;
    return 1;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    pause();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *data, size_t size) {
    if (file_below(file)) {
        int strike = strikes();
        if (strike == 1) return -1;
        if (strike == 2) { REAL(write)(file, data, size / 2); die(); }
    }
    return REAL(write)(file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    if (file_below(file)) {
        int strike = strikes();
        if (strike == 1) return -1;
        if (strike == 2) { REAL(pwrite64)(file, data, size / 2, at); die(); }
    }
    return REAL(pwrite64)(file, data, size, at);
}

ssize_t writev(int file, const struct iovec *parts, int number) {
    if (file_below(file)) {
        int strike = strikes();
        if (strike == 1) return -1;
        if (strike == 2) die();
    }
    return REAL(writev)(file, parts, number);
}

int fsync(int file) {
    if (file_below(file)) {
        int strike = strikes();
        if (strike == 1) return -1;
        if (strike == 2) die();
    }
    return REAL(fsync)(file);
}

int rename(const char *from, const char *to) {
    if (below(to)) {
        int strike = strikes();
        if (strike == 1) return -1;
        if (strike == 2) die();
    }
    return REAL(rename)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    if (below(path)) {
        int strike = strikes();
        if (strike == 1) return -1;
        if (strike == 2) die();
    }
    return REAL(mkdir)(path, mode);
}
