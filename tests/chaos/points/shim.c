/* Counts the socket and pipe calls of one armed process, and kills or stops it right before or after the N-th.
 *
 * Loaded with LD_PRELOAD; told what to do by a block of shared memory (block.py knows the same layout). The kill is a
 * raw system call, so that no handler, no atexit and no flush of the process runs: what a power cut leaves, is left.
 *
 * A pair needs no second order: whoever dies at the first point arms its heirs for the second, `again` calls later, in
 * the same moment, so that no heir is too quick to be armed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CONNECT, SEND, SENDTO, SENDMSG, RECV, RECVFROM, RECVMSG, READ, WRITE, WRITEV };
enum { KILL_BEFORE, KILL_AFTER, STOP_BEFORE, STOP_AFTER };
enum { UNIX_SOCKET = 1, HEAD = 100, CALLS_MAX = 4096 };

struct call { int32_t pid, op, pipe, fd, port, result, length; char head[HEAD]; };
struct block {
    int32_t armed, n, mode, child, main_pid, count, fired_pid, fired_at, kills, again, again_mode, second_at, epoch;
    int32_t unused[3];
    struct call calls[CALLS_MAX];
};
static struct block *block;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("COUNTERFOIL_TEST_POINT_BLOCK");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof(struct block), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) block = at;
    close(fd);
}

/* The process itself, or with `child` its children (prefork); nothing else in the tree is touched. */
static int mine(void) {
    return block && __atomic_load_n(&block->armed, __ATOMIC_ACQUIRE)
        && (block->child ? getppid() : getpid()) == block->main_pid;
}

static void fire(int32_t i) {
    int signal = block->mode < STOP_BEFORE ? SIGKILL : SIGSTOP;
    if (block->fired_at) block->second_at = i; else block->fired_at = i;
    if (block->again) {
        block->mode = block->again_mode;
        block->n = block->count + block->again;
        block->again = 0;
    }
    if (!block->fired_pid) __atomic_store_n(&block->fired_pid, getpid(), __ATOMIC_RELEASE);
    __atomic_add_fetch(&block->kills, 1, __ATOMIC_RELEASE);
    syscall(SYS_kill, getpid(), signal);
}

static void keep(struct call *call, const void *data, ssize_t length) {
    call->length = length > 0 ? (int32_t)length : 0;
    if (data && length > 0) memcpy(call->head, data, length < HEAD ? (size_t)length : HEAD);
}

static int port_of(const struct sockaddr *to) {
    if (to->sa_family == AF_INET) return ntohs(((const struct sockaddr_in *)to)->sin_port);
    if (to->sa_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)to)->sin6_port);
    return UNIX_SOCKET;
}

/* A call under way: its number, and in which life of the block; a pool child waits in a read from one to the next. */
struct place { int32_t i, epoch; };

/* Number 0 if the call does not count: neither socket nor pipe, or not the armed process. */
static struct place enter(int op, int fd, const struct sockaddr *to, const void *data, ssize_t length) {
    struct place nowhere = {0, 0};
    if (!mine()) return nowhere;
    int before = errno;
    struct stat is;
    if (fstat(fd, &is) || !(S_ISSOCK(is.st_mode) || S_ISFIFO(is.st_mode))) { errno = before; return nowhere; }
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer;
    if (!to && S_ISSOCK(is.st_mode) && !getpeername(fd, (struct sockaddr *)&peer, &size)) to = (struct sockaddr *)&peer;
    int32_t epoch = block->epoch, i = __atomic_add_fetch(&block->count, 1, __ATOMIC_ACQ_REL);
    if (i <= CALLS_MAX) {
        struct call *call = &block->calls[i - 1];
        *call = (struct call){getpid(), op, S_ISFIFO(is.st_mode), fd, to ? port_of(to) : 0, INT32_MIN, 0, {0}};
        keep(call, data, length);
    }
    if (i == block->n && (block->mode & 1) == 0) fire(i);
    errno = before;
    return (struct place){i, epoch};
}

static ssize_t leave(struct place at, ssize_t result, const void *answer) {
    int32_t i = at.i;
    /* A call that was under way when we were disarmed or armed anew belongs to nobody any more. */
    if (!i || at.epoch != block->epoch || !block->armed) return result;
    int after = errno;
    if (i <= CALLS_MAX) {
        block->calls[i - 1].result = (int32_t)result;
        if (answer) keep(&block->calls[i - 1], answer, result);
    }
    if (i == block->n && (block->mode & 1) == 1) fire(i);
    errno = after;
    return result;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FIRST(message, field) ((message)->msg_iovlen ? (message)->msg_iov[0].field : 0)

int connect(int fd, const struct sockaddr *to, socklen_t size) {
    REAL(connect); struct place i = enter(CONNECT, fd, to, NULL, 0); return (int)leave(i, real(fd, to, size), NULL);
}
ssize_t send(int fd, const void *data, size_t size, int flags) {
    REAL(send); struct place i = enter(SEND, fd, NULL, data, size); return leave(i, real(fd, data, size, flags), NULL);
}
ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    REAL(sendto); struct place i = enter(SENDTO, fd, to, data, size);
    return leave(i, real(fd, data, size, flags, to, length), NULL);
}
ssize_t sendmsg(int fd, const struct msghdr *m, int flags) {
    REAL(sendmsg); struct place i = enter(SENDMSG, fd, NULL, FIRST(m, iov_base), FIRST(m, iov_len));
    return leave(i, real(fd, m, flags), NULL);
}
ssize_t recv(int fd, void *data, size_t size, int flags) {
    REAL(recv); struct place i = enter(RECV, fd, NULL, NULL, 0); return leave(i, real(fd, data, size, flags), data);
}
ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *from, socklen_t *length) {
    REAL(recvfrom); struct place i = enter(RECVFROM, fd, NULL, NULL, 0);
    return leave(i, real(fd, data, size, flags, from, length), data);
}
ssize_t recvmsg(int fd, struct msghdr *m, int flags) {
    REAL(recvmsg); struct place i = enter(RECVMSG, fd, NULL, NULL, 0); return leave(i, real(fd, m, flags), NULL);
}
ssize_t read(int fd, void *data, size_t size) {
    REAL(read); struct place i = enter(READ, fd, NULL, NULL, 0); return leave(i, real(fd, data, size), data);
}
ssize_t write(int fd, const void *data, size_t size) {
    REAL(write); struct place i = enter(WRITE, fd, NULL, data, size); return leave(i, real(fd, data, size), NULL);
}
ssize_t writev(int fd, const struct iovec *v, int n) {
    REAL(writev); struct place i = enter(WRITEV, fd, NULL, n > 0 ? v->iov_base : NULL, n > 0 ? (ssize_t)v->iov_len : 0);
    return leave(i, real(fd, v, n), NULL);
}
