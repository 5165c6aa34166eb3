/* The description of what to do: statements, each a word and its arguments, each of these ended by a null byte (docs/agent.md). */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_ARGUMENTS 3
#define SEED_BYTES 32
#define BITS_PER_BYTE 8

char host_console[32];
unsigned int host_port = 1024;

static bool is_on(const char *text)
{
    return strcmp(text, "1") == 0;
}

/* One that is there already, or built in, is no failure. */
static void load_module(const char *path, const char *parameters)
{
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, parameters, 0) < 0 && errno != EEXIST)) {
        if (errno == ENODEV) /* such as one for instructions that this processor does not have */
            log_line("cannot load module %s: %s", name, strerror(errno));
        else
            complain("cannot load module %s: %s", name, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    unlink(path); /* its memory is free again */
}

static void seed(const char *digits)
{
    struct {
        struct rand_pool_info info;
        unsigned char bytes[SEED_BYTES];
    } pool = { .info = { .entropy_count = SEED_BYTES * BITS_PER_BYTE, .buf_size = SEED_BYTES } };
    for (size_t i = 0; i < SEED_BYTES; i++) {
        char digit[3] = { digits[2 * i], 0, 0 };
        if (digit[0] == 0)
            return;
        digit[1] = digits[2 * i + 1];
        pool.bytes[i] = (unsigned char)strtoul(digit, NULL, 16);
    }
    int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0)
        complain("cannot seed the random number generator: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void run_module(char **a)
{
    load_module(a[0], a[1]);
    times.modules = microseconds();
}

static void run_seed(char **a) { seed(a[0]); }
static void run_root(char **a) { mount_root("virtiofs", a[0], is_on(a[1])); }
static void run_disk(char **a) { mount_disk_root(a[0], a[1], is_on(a[2])); }
static void run_overlay(char **a) { mount_overlay_root(a[0]); }
static void run_bind(char **a) { mount_share(a[0], a[1], is_on(a[2])); }
static void run_address(char **a) { set_address(a[0], a[1], a[2]); }
static void run_resolver(char **a) { set_resolver(a[0]); }
static void run_port(char **a) { host_port = (unsigned int)strtoul(a[0], NULL, 10); }
static void run_console(char **a) { snprintf(host_console, sizeof host_console, "%s", a[0]); }

static void run_enter(char **a)
{
    (void)a;
    enter_root();
    resolve_own_name();
    bring_up_loopback();
}

static void run_name(char **a)
{
    if (sethostname(a[0], strlen(a[0])) < 0)
        complain("cannot set the host name %s: %s", a[0], strerror(errno));
}

static const struct {
    const char *word;
    int arguments;
    void (*run)(char **arguments);
} statements[] = {
    { "module", 2, run_module },   /* its path in the initramfs, its parameters */
    { "seed", 1, run_seed },       /* 64 hexadecimal digits */
    { "root", 2, run_root },       /* a virtio-fs tag; 1: read-only */
    { "disk", 3, run_disk },       /* a block device, its file system; 1: read-only */
    { "overlay", 1, run_overlay }, /* the size of the memory above the root, as for tmpfs */
    { "enter", 0, run_enter },     /* goes into the root, and gives it its other file systems */
    { "bind", 3, run_bind },       /* a virtio-fs tag, the directory; 1: read-only */
    { "address", 3, run_address }, /* a network interface, its address with prefix, the gateway or nothing */
    { "resolver", 1, run_resolver }, /* its address */
    { "name", 1, run_name },       /* the host name */
    { "port", 1, run_port },       /* the host's vsock port */
    { "console", 1, run_console }, /* the console that leads to the host, where there is no vsock */
};

static char *read_whole(const char *path, size_t *length)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return NULL;
    char *text = malloc(status.st_size + 1);
    if (!text || read(fd, text, status.st_size) != status.st_size)
        return NULL;
    close(fd);
    text[status.st_size] = 0;
    *length = status.st_size;
    return text;
}

void run_description(const char *path)
{
    size_t length;
    char *text = read_whole(path, &length);
    if (!text) {
        complain("cannot read %s: %s", path, strerror(errno));
        return;
    }
    char *next = text, *end = text + length;
    while (next < end) {
        const char *word = next;
        size_t i = 0;
        while (i < ARRAY_LENGTH(statements) && strcmp(word, statements[i].word) != 0)
            i++;
        next += strlen(next) + 1;
        if (i == ARRAY_LENGTH(statements)) {
            complain("has a description with an unknown word: %s", word);
            break;
        }
        char *arguments[MAX_ARGUMENTS];
        for (int argument = 0; argument < statements[i].arguments; argument++) {
            arguments[argument] = next < end ? next : "";
            next += next < end ? strlen(next) + 1 : 0;
        }
        statements[i].run(arguments);
    }
    free(text);
}
