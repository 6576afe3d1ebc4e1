/* A virtio entropy device behind a vhost-user socket, in C: what `vdev check device` judges in docs/check-in-ci.md.
 *
 *     cc -std=c11 -O2 -Wall -Wextra -Werror -o entropy entropy.c
 *     ./entropy /tmp/entropy.sock
 *
 * One front end at a time, one split queue, no threads. What a front end or a driver gets wrong ends its connection or
 * stops its ring; the process lives on for the next one. Little-endian machines only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    GET_FEATURES = 1, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_VRING_NUM = 8, SET_VRING_ADDR,
    SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR, GET_PROTOCOL_FEATURES,
    SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE,
};
enum { VERSION = 1, REPLY = 4, NEED_REPLY = 8, NO_FD = 256, MAX_REGIONS = 8, MAX_SIZE = 1024 };

#define VERSION_1 (1ull << 32)
#define PROTOCOL_FEATURES (1ull << 30)
#define MQ (1ull << 0)
#define REPLY_ACK (1ull << 3)
#define FEATURES (VERSION_1 | PROTOCOL_FEATURES)

struct header { uint32_t request, flags, size; };
struct region { uint64_t guest, size, user, offset; };
struct address { uint32_t index, flags; uint64_t descriptors, used, available, log; };
struct descriptor { uint64_t address; uint32_t size; uint16_t flags, next; };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
struct used_element { uint32_t id, size; };

union payload {
    uint64_t number;
    struct { uint32_t index, value; } state;
    struct address address;
    struct { uint32_t count, padding; struct region regions[MAX_REGIONS]; } table;
};

/* Everything that one front end has told. */
static struct {
    uint64_t features, protocol_features;
    int region_count;
    struct { struct region told; uint8_t *bytes; size_t mapped; } regions[MAX_REGIONS];
    uint32_t size;
    uint64_t descriptors, available, used;
    uint16_t next;
    int kick, call, error;
    bool has_addresses, is_started, is_enabled;
} state;

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void forget_memory(void) {
    for (int i = 0; i < state.region_count; i++) munmap(state.regions[i].bytes, state.regions[i].mapped);
    state.region_count = 0;
}

static void begin(void) {
    memset(&state, 0, sizeof state);
    state.kick = state.call = state.error = -1;
}

static void end(void) {
    forget_memory();
    close_fd(&state.kick);
    close_fd(&state.call);
    close_fd(&state.error);
}

/* Where `size` bytes at an address are, NULL if they are not in one region. */
static void *at(uint64_t address, uint64_t size, bool is_user) {
    for (int i = 0; i < state.region_count; i++) {
        struct region *r = &state.regions[i].told;
        uint64_t begins = is_user ? r->user : r->guest;
        if (address >= begins && address - begins <= r->size && size <= r->size - (address - begins))
            return state.regions[i].bytes + r->offset + (address - begins);
    }
    return NULL;
}

/* ---- the ring ---- */

static bool fill(uint32_t id, uint32_t *written) {
    struct descriptor *table = at(state.descriptors, 16ull * state.size, true);
    uint8_t *parts[MAX_SIZE];
    uint32_t sizes[MAX_SIZE], count = 0;
    uint64_t total = 0;
    for (uint32_t index = id, seen = 0;; seen++) {
        if (index >= state.size || seen >= state.size) return false;
        struct descriptor d;
        memcpy(&d, &table[index], sizeof d); /* once: the driver may change it while we look */
        if (d.flags & INDIRECT || !(d.flags & WRITE) || !d.size) return false;
        parts[count] = at(d.address, d.size, false);
        if (!parts[count]) return false;
        total += sizes[count++] = d.size;
        if (!(d.flags & NEXT)) break;
        index = d.next;
    }
    if (total > UINT32_MAX) return false;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t done = 0; done < sizes[i];) {
            ssize_t got = getrandom(parts[i] + done, sizes[i] - done, 0);
            if (got < 0 && errno != EINTR) return false;
            if (got > 0) done += got;
        }
    *written = total;
    return true;
}

/* Serve what is available; false if the driver broke the text, and the ring is then left alone. */
static bool serve(void) {
    _Atomic uint16_t *available = at(state.available, 6 + 2ull * state.size, true);
    _Atomic uint16_t *used = at(state.used, 6 + 8ull * state.size, true);
    if (!available || !used || !at(state.descriptors, 16ull * state.size, true)) return false;
    uint16_t used_index = atomic_load(&used[1]);
    bool any = false;
    for (;;) {
        uint16_t index = atomic_load_explicit(&available[1], memory_order_acquire);
        if ((uint16_t)(index - state.next) > state.size) return false;
        if (index == state.next) break;
        uint32_t id = atomic_load(&available[2 + state.next % state.size]), written;
        if (!fill(id, &written)) return false;
        struct used_element *element = (struct used_element *)(used + 2) + used_index % state.size;
        *element = (struct used_element){id, written};
        state.next++;
        atomic_store_explicit(&used[1], ++used_index, memory_order_release);
        any = true;
    }
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t one = 1;
    if (any && state.call >= 0 && !(atomic_load(&available[0]) & 1) && write(state.call, &one, 8) < 0 && errno != EAGAIN)
        return false;
    return true;
}

static void try_to_serve(void) {
    if (!state.is_started || !state.is_enabled || !state.has_addresses || !state.size || serve()) return;
    uint64_t one = 1;
    if (state.error >= 0 && write(state.error, &one, 8) < 0) perror("error eventfd");
    state.is_enabled = false;
}

/* ---- messages ---- */

static bool take_memory(union payload *p, uint32_t size, int *fds, int fd_count) {
    forget_memory();
    if (size < 8 || p->table.count > MAX_REGIONS || size != 8 + 32 * p->table.count || (int)p->table.count != fd_count)
        return false;
    for (int i = 0; i < fd_count; i++) {
        struct region r = p->table.regions[i];
        struct stat file;
        if (fstat(fds[i], &file) || !r.size || r.offset + r.size < r.size || r.offset + r.size > (uint64_t)file.st_size ||
            r.guest + r.size < r.size || r.user + r.size < r.size)
            return false;
        void *bytes = mmap(NULL, r.offset + r.size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
        if (bytes == MAP_FAILED) return false;
        state.regions[i].told = r;
        state.regions[i].bytes = bytes;
        state.regions[i].mapped = r.offset + r.size;
        state.region_count = i + 1;
    }
    return true;
}

static bool take_event(uint64_t number, int *fds, int fd_count, int *kept) {
    if ((number & 255) != 0 || number > (NO_FD | 255) || fd_count != !(number & NO_FD)) return false;
    close_fd(kept);
    if (fd_count) *kept = fds[0], fds[0] = -1;
    return true;
}

/* Do what a message says. Returns the size of an answer in *p, 0 for none, or -1 if it cannot be obeyed. */
static int obey(struct header *h, union payload *p, int *fds, int fd_count) {
    bool is_event = h->request >= SET_VRING_KICK && h->request <= SET_VRING_ERR;
    if (fd_count && !is_event && h->request != SET_MEM_TABLE) return -1;
    switch (h->request) {
    case GET_FEATURES:
        p->number = FEATURES;
        return 8;
    case SET_FEATURES:
        if (h->size != 8 || p->number & ~FEATURES) return -1;
        state.features = p->number;
        if (!(state.features & PROTOCOL_FEATURES)) state.is_enabled = true;
        return 0;
    case GET_PROTOCOL_FEATURES:
        p->number = MQ | REPLY_ACK;
        return 8;
    case GET_QUEUE_NUM:
        p->number = 1;
        return 8;
    case SET_PROTOCOL_FEATURES:
        if (h->size != 8 || p->number & ~(MQ | REPLY_ACK)) return -1;
        state.protocol_features = p->number;
        return 0;
    case SET_OWNER:
        return 0;
    case RESET_OWNER:
        state.is_enabled = false;
        return 0;
    case SET_MEM_TABLE:
        return take_memory(p, h->size, fds, fd_count) ? 0 : -1;
    case SET_VRING_NUM:
        if (h->size != 8 || p->state.index || !p->state.value || p->state.value > MAX_SIZE ||
            p->state.value & (p->state.value - 1))
            return -1;
        state.size = p->state.value;
        return 0;
    case SET_VRING_ADDR:
        if (h->size != sizeof p->address || p->address.index || p->address.flags) return -1;
        if (p->address.descriptors % 16 || p->address.available % 2 || p->address.used % 4) return -1;
        state.descriptors = p->address.descriptors;
        state.available = p->address.available;
        state.used = p->address.used;
        state.has_addresses = true;
        return 0;
    case SET_VRING_BASE:
        if (h->size != 8 || p->state.index || p->state.value > UINT16_MAX) return -1;
        state.next = p->state.value;
        return 0;
    case GET_VRING_BASE:
        if (h->size != 8 || p->state.index) return -1;
        state.is_started = false;
        close_fd(&state.kick);
        p->state.value = state.next;
        return 8;
    case SET_VRING_KICK:
        if (h->size != 8 || !take_event(p->number, fds, fd_count, &state.kick)) return -1;
        state.is_started = true;
        return 0;
    case SET_VRING_CALL:
        return h->size == 8 && take_event(p->number, fds, fd_count, &state.call) ? 0 : -1;
    case SET_VRING_ERR:
        return h->size == 8 && take_event(p->number, fds, fd_count, &state.error) ? 0 : -1;
    case SET_VRING_ENABLE:
        if (h->size != 8 || p->state.index || p->state.value > 1) return -1;
        state.is_enabled = p->state.value;
        return 0;
    }
    return -1;
}

static bool send_all(int sock, const void *data, size_t size) {
    return send(sock, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* Take one message. False when the connection is to end. */
static bool handle(int sock) {
    struct header h;
    union payload p = {0};
    int fds[MAX_REGIONS], fd_count = 0;
    char control[CMSG_SPACE(sizeof fds)] __attribute__((aligned(8)));
    struct iovec iov = {&h, sizeof h};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); got >= 0 && c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            fd_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(c), fd_count * sizeof(int));
        }
    bool goes_on = got == sizeof h && (h.flags & 3) == VERSION && !(h.flags & REPLY) && h.size <= sizeof p &&
                   !(m.msg_flags & MSG_CTRUNC) && (!h.size || recv(sock, &p, h.size, MSG_WAITALL) == (ssize_t)h.size);
    if (goes_on) {
        bool needs_reply = h.flags & NEED_REPLY && state.protocol_features & REPLY_ACK;
        struct { struct header h; union payload p; } __attribute__((packed)) answer = {.h = {h.request, VERSION | REPLY, 8}};
        int size = obey(&h, &p, fds, fd_count);
        answer.p = p;
        if (size <= 0 && needs_reply) answer.p.number = size < 0, size = 8;
        goes_on = size >= 0 && (!size || send_all(sock, &answer, sizeof h + size));
    }
    for (int i = 0; i < fd_count; i++) close_fd(&fds[i]);
    return goes_on;
}

static void serve_front_end(int sock) {
    begin();
    for (;;) {
        try_to_serve();
        struct pollfd polled[] = {{sock, POLLIN, 0}, {state.is_started ? state.kick : -1, POLLIN, 0}};
        /* A ring without a kick descriptor is looked at again and again. */
        if (poll(polled, 2, state.is_started && state.kick < 0 ? 1 : -1) < 0) break;
        uint64_t count;
        if (polled[1].revents && read(state.kick, &count, 8) < 0 && errno != EAGAIN) close_fd(&state.kick);
        if (polled[0].revents && !handle(sock)) break;
    }
    end();
    close(sock);
}

int main(int argc, char **argv) {
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof where.sun_path) {
        fprintf(stderr, "usage: %s SOCKET\n", argv[0]);
        return 2;
    }
    strcpy(where.sun_path, argv[1]);
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(argv[1]);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) || listen(listener, 1)) {
        perror(argv[1]);
        return 1;
    }
    for (;;) {
        int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (sock >= 0) serve_front_end(sock);
    }
}
