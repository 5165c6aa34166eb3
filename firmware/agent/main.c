/* The agent's two ways to be started:
 *   as process 1        init of the guest
 *   serve               a session on descriptor 3, a connected socket; for tests on the host */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTION "/description"
#define ATTACH_PORT 1024
#define INHERITED 3
#define BACKLOG 8

bool is_guest;
struct times times;
static struct timespec start;

/* Since the agent's start. */
uint32_t microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((now.tv_sec - start.tv_sec) * 1000000 + (now.tv_nsec - start.tv_nsec) / 1000);
}

static void power_off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

static int connect_to_host(unsigned int port)
{
    struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port };
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        log_line("cannot connect to the host by vsock: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

/* Byte for byte what the host's end has. */
static int open_console(const char *name)
{
    char path[64];
    struct termios settings;
    snprintf(path, sizeof path, "/dev/%s", name);
    wait_for_device(path);
    int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0 && tcgetattr(fd, &settings) == 0) {
        cfmakeraw(&settings);
        if (tcsetattr(fd, TCSANOW, &settings) == 0)
            return fd;
    }
    log_line("cannot open the console %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listen_for_hosts(void)
{
    struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = ATTACH_PORT };
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    log_line("cannot listen on vsock port %d: %s", ATTACH_PORT, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Not a program in the guest, which reaches the listener by vsock's loopback: whoever gets a session is root. A user cannot take the host's number: the
   kernel writes that of the way by which a connection came. */
static int accept_host(int listener)
{
    struct sockaddr_vm peer = { .svm_cid = VMADDR_CID_ANY };
    socklen_t size = sizeof peer;
    int connection = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);
    if (connection < 0 || (size >= sizeof peer && peer.svm_family == AF_VSOCK && peer.svm_cid == VMADDR_CID_HOST))
        return connection;
    close(connection);
    errno = ECONNABORTED;
    return -1;
}

static pid_t start_session(int connection, bool is_main)
{
    pid_t id = fork();
    if (id == 0) {
        signal(SIGCHLD, SIG_DFL);
        serve(connection, is_main);
        _exit(0);
    }
    if (id < 0)
        log_line("cannot fork: %s", strerror(errno));
    close(connection);
    return id;
}

/* A process of its own, so that the first one only has to reap. The main session's connection is not its own: the host is to see the end of that. */
static void start_listener(int connection)
{
    int listener = listen_for_hosts();
    if (listener < 0)
        return;
    pid_t id = fork();
    if (id != 0) {
        close(listener);
        return;
    }
    close(connection);
    forget_complaints();      /* the main session tells of them */
    signal(SIGCHLD, SIG_IGN); /* its sessions are reaped by the kernel */
    int told = 0; /* the error that was told last */
    for (;;) {
        connection = accept_host(listener);
        if (connection >= 0) {
            start_session(connection, false);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            if (errno != told)
                log_line("cannot take a connection: %s", strerror(told = errno));
            usleep(100000); /* the guest may have memory again */
        }
    }
}

static void run_as_init(void)
{
    is_guest = true;
    mount_initial();
    write_text("/proc/self/oom_score_adj", "-1000"); /* its children have that, too; a command has 0 again */
    /* So far may a command raise it that is not root's, as on a host with systemd; the kernel's own is 4096. */
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){ .rlim_cur = 1024, .rlim_max = 524288 });
    run_description(DESCRIPTION);
    times.mounts = microseconds();
    int connection = *host_console ? open_console(host_console) : connect_to_host(host_port);
    if (connection < 0)
        power_off();
    if (!*host_console)
        start_listener(connection);
    pid_t session = start_session(connection, true);
    while (session > 0) {
        int status = 0;
        pid_t ended = waitpid(-1, &status, 0);
        if (ended == session && WIFSIGNALED(status))
            log_line("killed by signal %d", WTERMSIG(status)); /* vmm looks for these words */
        if (ended == session || (ended < 0 && errno != EINTR))
            break;
    }
    /* The host has what it wanted to know, or is gone. */
    power_off();
}

int main(int count, char **arguments)
{
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (getpid() == 1)
        run_as_init();
    if (count != 2 || strcmp(arguments[1], "serve") != 0) {
        static const char usage[] = "vmm-agent: init of a guest of vmm exec; or: vmm-agent serve, on descriptor 3\n";
        (void)!write(STDERR_FILENO, usage, sizeof usage - 1);
        return 2;
    }
    serve(INHERITED, false);
    return 0;
}
