/* Both ends of the measurements of data planes, over TCP and over AF_VSOCK.
 *   bench-peer tcp ADDRESS TRACING PID   measures against a server there, from the host
 *   bench-peer vsock CID TRACING PID     the same over a virtual socket
 * As the guest's init (with no such arguments) it loads the modules that /modules lists, sets up eth0 if there is one,
 * and serves both. At the end it powers the guest off, or resets it with the argument "reset". TRACING is where tracefs
 * is: tracing is on during the 500 counted round trips only.
 * PID is the VMM. It prints, in this order: round trip p50 and p99 in us, MB/s to the guest, MB/s from it, connections a
 * second, and the microseconds of CPU time of the VMM's threads that are no vCPUs, during all of this. */
#include "bench.h"
#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>

#define PORT 5000
#define GUEST_ADDRESS "10.99.0.2"
#define ROUND_TRIPS 500
#define WARM_UP 200
#define CHUNK 65536
#define TRANSFER (32u << 20)
#define CONNECTIONS 200

union address {
    struct sockaddr any;
    struct sockaddr_in tcp;
    struct sockaddr_vm vsock;
};

static char buffer[CHUNK];
static int end = RB_POWER_OFF;

static void set_up_network(void)
{
    struct ifreq request = {.ifr_name = "eth0"};
    struct sockaddr_in *address = (struct sockaddr_in *)&request.ifr_addr;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    address->sin_family = AF_INET;
    inet_aton(GUEST_ADDRESS, &address->sin_addr);
    if (ioctl(fd, SIOCSIFADDR, &request))
        return; /* there is none */
    inet_aton("255.255.255.0", &address->sin_addr);
    ioctl(fd, SIOCSIFNETMASK, &request);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &request))
        fail("eth0");
    close(fd);
}

static int listen_on(int family)
{
    union address address = {0};
    socklen_t size = family == AF_INET ? sizeof(address.tcp) : sizeof(address.vsock);
    int fd = socket(family, SOCK_STREAM, 0);

    if (family == AF_INET) {
        address.tcp.sin_family = AF_INET;
        address.tcp.sin_port = htons(PORT);
    } else {
        address.vsock.svm_family = AF_VSOCK;
        address.vsock.svm_cid = VMADDR_CID_ANY;
        address.vsock.svm_port = PORT;
    }
    if (fd < 0 || bind(fd, &address.any, size) || listen(fd, 8))
        fail("listen");
    return fd;
}

static void no_delay(int fd)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* a vsock has no delay */
}

/* What a connection is for comes as its first byte. */
static void serve(int listener)
{
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        char command;
        ssize_t count;

        if (fd < 0)
            fail("accept");
        no_delay(fd);
        if (read(fd, &command, 1) != 1) {
            close(fd);
            continue;
        }
        switch (command) {
        case 'e': /* echo */
            while ((count = read(fd, buffer, 1)) == 1 && write(fd, buffer, 1) == 1)
                ;
            break;
        case 't': /* take */
            while ((count = read(fd, buffer, CHUNK)) > 0)
                ;
            if (write(fd, buffer, 1) != 1)
                fail("write");
            break;
        case 'g': /* give */
            for (unsigned sent = 0; sent < TRANSFER; sent += count)
                if ((count = write(fd, buffer, CHUNK)) < 0)
                    fail("write");
            break;
        case 'q':
            reboot(end);
        }
        close(fd);
    }
}

static union address peer;
static socklen_t peer_size;

static int open_connection(char command)
{
    for (int attempt = 0;; attempt++) {
        int fd = socket(peer.any.sa_family, SOCK_STREAM, 0);

        if (fd < 0)
            fail("socket");
        if (connect(fd, &peer.any, peer_size) == 0) {
            no_delay(fd);
            if (write(fd, &command, 1) != 1)
                fail("write");
            return fd;
        }
        if (attempt == 300)
            fail("connect");
        close(fd);
        usleep(100000);
    }
}

static void measure(const char *trace, const char *pid)
{
    static double times[ROUND_TRIPS];
    double start, used = 0;
    int fd = open_connection('e');

    for (int i = -WARM_UP; i < ROUND_TRIPS; i++) {
        if (i == 0) {
            used = cpu_time(pid);
            tracing(trace, "1");
        }
        start = now();
        if (write(fd, buffer, 1) != 1 || read(fd, buffer, 1) != 1)
            fail("round trip");
        if (i >= 0)
            times[i] = now() - start;
    }
    tracing(trace, "0");
    close(fd);
    qsort(times, ROUND_TRIPS, sizeof(times[0]), by_size);
    printf("%.1f %.1f", times[ROUND_TRIPS / 2], times[ROUND_TRIPS * 99 / 100]);

    fd = open_connection('t');
    start = now();
    for (unsigned sent = 0; sent < TRANSFER;) {
        ssize_t count = write(fd, buffer, CHUNK);

        if (count < 0)
            fail("write");
        sent += count;
    }
    shutdown(fd, SHUT_WR);
    if (read(fd, buffer, 1) != 1)
        fail("read");
    printf(" %.1f", TRANSFER / (now() - start));
    close(fd);

    fd = open_connection('g');
    start = now();
    for (ssize_t count; (count = read(fd, buffer, CHUNK)) > 0;)
        ;
    printf(" %.1f", TRANSFER / (now() - start));
    close(fd);

    start = now();
    for (int i = 0; i < CONNECTIONS; i++) {
        fd = open_connection('e');
        if (write(fd, buffer, 1) != 1 || read(fd, buffer, 1) != 1)
            fail("connection");
        close(fd);
    }
    printf(" %.0f %.0f\n", CONNECTIONS * 1e6 / (now() - start), cpu_time(pid) - used);
    fflush(stdout);
    open_connection('q');
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "tcp")) {
        peer.tcp.sin_family = AF_INET;
        peer.tcp.sin_port = htons(PORT);
        inet_aton(argv[2], &peer.tcp.sin_addr);
        peer_size = sizeof(peer.tcp);
        measure(argv[3], argv[4]);
        return 0;
    }
    if (argc == 5 && !strcmp(argv[1], "vsock")) {
        peer.vsock.svm_family = AF_VSOCK;
        peer.vsock.svm_cid = atoi(argv[2]);
        peer.vsock.svm_port = PORT;
        peer_size = sizeof(peer.vsock);
        measure(argv[3], argv[4]);
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "reset"))
        end = RB_AUTOBOOT;
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    signal(SIGPIPE, SIG_IGN);
    load_modules();
    set_up_network();
    if (access("/dev/vsock", F_OK) == 0 && fork() == 0)
        serve(listen_on(AF_VSOCK));
    serve(listen_on(AF_INET));
}
