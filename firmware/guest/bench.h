/* What the programs that measure data planes share: some for the guest, some for the host. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline void fail(const char *what)
{
    perror(what);
    exit(1);
}

static inline void load_modules(void)
{
    FILE *list = fopen("/modules", "r");
    char path[256];

    while (list && fgets(path, sizeof(path), list)) {
        int fd;

        path[strcspn(path, "\n")] = 0;
        fd = open(path, O_RDONLY);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
            fail(path);
        close(fd);
    }
}

static inline double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static inline void tracing(const char *directory, const char *on)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/tracing_on", directory);
    fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, on, 1) != 1)
        fail(path);
    close(fd);
}

/* Of the VMM's threads but its vCPUs, in us. */
static inline double cpu_time(const char *pid)
{
    char path[512], name[64];
    double total = 0;
    struct dirent *entry;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%s/task", pid);
    tasks = opendir(path);
    if (!tasks)
        fail(path);
    while ((entry = readdir(tasks))) {
        unsigned long long time = 0;
        FILE *file;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%s/task/%s/comm", pid, entry->d_name);
        file = fopen(path, "r");
        if (!file || !fgets(name, sizeof(name), file))
            fail(path);
        fclose(file);
        if (!strncmp(name, "vcpu", 4) || !strncmp(name, "CPU ", 4) || !strncmp(name, "kvm-vcpu", 8))
            continue;
        snprintf(path, sizeof(path), "/proc/%s/task/%s/schedstat", pid, entry->d_name);
        file = fopen(path, "r");
        if (!file || fscanf(file, "%llu", &time) != 1)
            fail(path);
        fclose(file);
        total += time / 1e3;
    }
    closedir(tasks);
    return total;
}

static inline int by_size(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;

    return (difference > 0) - (difference < 0);
}
