/* Both ends of the measurements of disks and shared directories.
 * As the guest's init, with "blk", "fs" or "dax" on the kernel's command line after "--", it loads the modules that /modules
 * lists, and measures /dev/vda, or the directory that is shared as "work"; with "dax" only what there is of it with DAX. Before
 * and after each measurement it says so on the console, and waits for an answer.
 *   bench-storage PID DAEMON TRACING TO FROM
 * is the host's end: PID is the VMM, DAEMON the daemon's process, TRACING where tracefs is, TO and FROM are the VMM's standard
 * input and output. For each measurement it prints a line with its name, the number of operations and the microseconds that they
 * took together, p50 and p99 of them in us, the exits to user space meanwhile, and the microseconds of CPU time of the VMM's
 * threads that are no vCPUs, and of the daemon. At the end it says on standard error how much memory the daemon has. */
#define _GNU_SOURCE
#include "bench.h"
#include <dirent.h>
#include <linux/aio_abi.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>

#define MARK_PORT 0xf4 /* belongs to no device: a write to it is seen in the host's trace */
#define SIZE (32u << 20)
#define CHUNK (128u << 10)
#define BLOCK 4096u
#define DEPTH 32
#define WARM_UP 200
#define RANDOM_SHALLOW 1500
#define RANDOM_DEEP 4000
#define FILES 400
#define TRACKED 10000 /* files in the git repository that the host has put there */
#define MAPPED (64u << 20) /* bytes of the file that it has put there for DAX */

static double times[RANDOM_DEEP + WARM_UP], since; /* of the most operations between two resets of count */
static int count;
static char *buffers;

/* Nothing may be waiting for the console while the clock runs, and the host has to look at the VMM's threads in peace. */
/* Until the host's side has done what the last line asks of it. */
static void await_host(void)
{
    char answer;

    do {
        if (read(0, &answer, 1) != 1)
            fail("console");
    } while (answer != '\n');
}

static void begin(const char *name)
{
    dprintf(1, "begin %s\n", name);
    await_host();
    count = 0;
    outb(1, MARK_PORT);
    since = now();
}

static void end_of(int operations)
{
    double all = now() - since;

    outb(2, MARK_PORT);
    qsort(times, count, sizeof(times[0]), by_size);
    dprintf(1, "end %d %.0f %.1f %.1f\n", operations, all, times[count / 2], times[count * 99 / 100]);
}

static void end(void) { end_of(count); }

static void add(double start) { times[count++] = now() - start; }

static unsigned random_block_of(unsigned size)
{
    static unsigned state = 2463534242;

    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % (size / BLOCK);
}

static unsigned random_block(void) { return random_block_of(SIZE); }

static void transfer(int fd, int writes, size_t size, off_t offset)
{
    ssize_t done = writes ? pwrite(fd, buffers, size, offset) : pread(fd, buffers, size, offset);

    if (done != (ssize_t)size)
        fail("transfer");
}

static void sequential(int fd, int writes)
{
    for (unsigned offset = 0; offset < SIZE; offset += CHUNK) {
        double start = now();

        transfer(fd, writes, CHUNK, offset);
        add(start);
    }
}

static void shallow(int fd, int writes)
{
    for (int i = 0; i < WARM_UP; i++)
        transfer(fd, writes, BLOCK, (off_t)random_block() * BLOCK);
    begin(writes ? "write-1" : "read-1");
    for (int i = 0; i < RANDOM_SHALLOW; i++) {
        double start = now();

        transfer(fd, writes, BLOCK, (off_t)random_block() * BLOCK);
        add(start);
    }
    end();
}

/* DEPTH requests are always on their way; what has come back goes out again in one call. */
static void deep(int fd, int writes, int wanted)
{
    static struct iocb requests[DEPTH];
    static double started[DEPTH];
    struct iocb *ready[DEPTH];
    struct io_event events[DEPTH];
    aio_context_t context = 0;
    int begun = 0, done = 0, idle = DEPTH;

    if (syscall(SYS_io_setup, DEPTH, &context))
        fail("io_setup");
    for (int i = 0; i < DEPTH; i++)
        events[i].data = i;
    while (done < wanted) {
        int batch = 0;

        for (int i = 0; i < idle && begun < wanted; i++, begun++) {
            int slot = events[i].data;

            requests[slot] = (struct iocb){
                .aio_data = slot,
                .aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
                .aio_fildes = fd,
                .aio_buf = (unsigned long)(buffers + slot * BLOCK),
                .aio_nbytes = BLOCK,
                .aio_offset = (long long)random_block() * BLOCK,
            };
            ready[batch++] = &requests[slot];
            started[slot] = now();
        }
        for (int sent = 0; sent < batch;) {
            int result = syscall(SYS_io_submit, context, batch - sent, ready + sent);

            if (result < 1)
                fail("io_submit");
            sent += result;
        }
        idle = syscall(SYS_io_getevents, context, 1, DEPTH, events, NULL);
        if (idle < 1)
            fail("io_getevents");
        for (int i = 0; i < idle; i++, done++) {
            if (events[i].res != BLOCK)
                fail("asynchronous transfer");
            add(started[events[i].data]);
        }
    }
    syscall(SYS_io_destroy, context);
}

static void measure_file(int fd)
{
    if (fd < 0)
        fail("open");
    sequential(fd, 1); /* so that nothing has to be allocated later */
    begin("write");
    sequential(fd, 1);
    end();
    begin("read");
    sequential(fd, 0);
    end();
    for (int writes = 0; writes < 2; writes++) {
        shallow(fd, writes);
        count = 0;
        deep(fd, writes, WARM_UP);
        begin(writes ? "write-32" : "read-32");
        deep(fd, writes, RANDOM_DEEP);
        end();
    }
    close(fd);
}

static void forget(const char *what) /* 1: contents of files, 2: names and attributes. The guest would know the answers already */
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

    if (write(fd, what, 1) != 1)
        fail("drop_caches");
    close(fd);
}

/* Through the guest's page cache, which has nothing of what is read. */
static void measure_buffered(void)
{
    int fd = open("/mnt/data", O_RDWR);

    if (fd < 0)
        fail("open");
    begin("buffered-write");
    sequential(fd, 1);
    end();
    close(fd);
    forget("1");
    fd = open("/mnt/data", O_RDONLY);
    begin("buffered-read");
    sequential(fd, 0);
    end();
    close(fd);
}

static const char *file_name(int i)
{
    static char name[32];

    snprintf(name, sizeof(name), "/mnt/f%d", i);
    return name;
}

static void create_file(const char *name)
{
    int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);

    if (fd < 0 || close(fd))
        fail(name);
}

static void stat_file(const char *name)
{
    struct stat status;

    if (stat(name, &status))
        fail(name);
}

static void unlink_file(const char *name)
{
    if (unlink(name))
        fail(name);
}

static void for_each_file(const char *what, void (*action)(const char *name))
{
    begin(what);
    for (int i = 0; i < FILES; i++) {
        const char *name = file_name(i);
        double start = now();

        action(name);
        add(start);
    }
    end();
}

/* Reads the directory and looks at each file, as git status does. */
static void list_files(void)
{
    begin("list");
    DIR *directory = opendir("/mnt");
    double start = now();

    if (!directory)
        fail("opendir");
    for (struct dirent *entry; (entry = readdir(directory)); start = now()) {
        struct stat status;

        if (fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW))
            fail(entry->d_name);
        add(start);
    }
    closedir(directory);
    end();
}

/* Reads the names in the directory, and no more. */
static void read_names(void)
{
    begin("readdir");
    DIR *directory = opendir("/mnt");
    double start = now();

    if (!directory)
        fail("opendir");
    for (; readdir(directory); start = now())
        add(start);
    closedir(directory);
    if (count < FILES)
        fail("readdir");
    end();
}

/* What a program that looks at many files costs: one run of it, an operation for each file. */
static void git_status(void)
{
    int status, fd;
    double start;
    pid_t child;

    begin("git-status");
    start = now();
    child = fork();
    if (!child) {
        fd = open("/dev/null", O_RDWR);
        dup2(fd, 0);
        dup2(fd, 1);
        execle("/bin/git", "git", "-C", "/mnt/repository", "status", "--porcelain", NULL, (char *[]){"HOME=/", NULL});
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status)
        fail("git");
    add(start);
    end_of(TRACKED);
}

static void measure_metadata(void)
{
    for_each_file("create", create_file);
    forget("2");
    for_each_file("stat", stat_file);
    forget("2");
    read_names();
    forget("2");
    list_files();
    for_each_file("unlink", unlink_file);
    forget("3");
    git_status();
}

/* All of the file's words, by one instruction each. */
static unsigned long sum(const unsigned long *words, size_t count)
{
    unsigned long a = 0, b = 0, c = 0, d = 0;

    for (size_t i = 0; i < count; i += 8) {
        a += words[i] + words[i + 4];
        b += words[i + 1] + words[i + 5];
        c += words[i + 2] + words[i + 6];
        d += words[i + 3] + words[i + 7];
    }
    return a + b + c + d;
}

static void read_mapped(const char *name, const char *file)
{
    volatile unsigned long all = 0;

    begin(name);
    for (unsigned offset = 0; offset < MAPPED; offset += CHUNK) {
        double start = now();

        all += sum((const unsigned long *)(file + offset), CHUNK / sizeof(long));
        add(start);
    }
    end();
}

/* The host has written the file: it is in the host's page cache, and the guest has seen nothing of it. */
static void measure_dax(void)
{
    int fd = open("/mnt/mapped", O_RDONLY);
    char *file = mmap(NULL, MAPPED, PROT_READ, MAP_SHARED, fd, 0);

    if (fd < 0 || file == MAP_FAILED)
        fail("mapped");
    read_mapped("dax-first", file);
    read_mapped("dax-again", file);
    begin("dax-read-1");
    for (int i = 0; i < RANDOM_SHALLOW; i++) {
        double start = now();

        transfer(fd, 0, BLOCK, (off_t)random_block_of(MAPPED) * BLOCK);
        add(start);
    }
    end();
    munmap(file, MAPPED);
    close(fd);
}

static void prepare_console(void)
{
    struct termios mode;

    if (tcgetattr(0, &mode))
        fail("console");
    mode.c_lflag &= ~ECHO;
    mode.c_oflag &= ~OPOST;
    tcsetattr(0, TCSANOW, &mode);
}

static int guest(const char *plane)
{
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("proc", "/proc", "proc", 0, NULL);
    load_modules();
    prepare_console();
    if (ioperm(MARK_PORT, 1, 1))
        fail("ioperm");
    buffers = aligned_alloc(BLOCK, CHUNK > DEPTH * BLOCK ? CHUNK : DEPTH * BLOCK);
    memset(buffers, 0x5a, CHUNK);
    if (!strcmp(plane, "blk")) {
        measure_file(open("/dev/vda", O_RDWR | O_DIRECT));
    } else if (!strcmp(plane, "dax")) {
        if (mount("work", "/mnt", "virtiofs", 0, "dax=always"))
            fail("mount");
        measure_dax();
        umount("/mnt");
    } else {
        if (mount("work", "/mnt", "virtiofs", 0, NULL))
            fail("mount");
        measure_file(open("/mnt/data", O_CREAT | O_RDWR | O_DIRECT, 0644));
        measure_buffered();
        measure_metadata();
        umount("/mnt");
    }
    dprintf(1, "done\n");
    await_host();
    return reboot(RB_POWER_OFF);
}

/* Exits between the two marks, without the first mark's own. */
static int exits_between_marks(const char *directory)
{
    char path[256], line[1024];
    int exits = -1, inside = 0;
    FILE *trace;

    snprintf(path, sizeof(path), "%s/trace", directory);
    trace = fopen(path, "r");
    if (!trace)
        fail(path);
    while (fgets(line, sizeof(line), trace)) {
        if (strstr(line, "kvm_pio:"))
            inside = strstr(line, "val 0x1 ") != NULL;
        else if (inside)
            exits += strstr(line, "kvm_userspace_exit:") != NULL;
    }
    fclose(trace);
    return exits;
}

static void clear_trace(const char *directory)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/trace", directory);
    fd = open(path, O_WRONLY | O_TRUNC);
    if (fd < 0)
        fail(path);
    close(fd);
}

/* What it has of its own, and of files: the guest's memory, which it maps, is the rest (RssShmem). */
static void print_memory(const char *pid)
{
    char path[64], line[256];
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%s/status", pid);
    status = fopen(path, "r");
    if (!status)
        fail(path);
    while (fgets(line, sizeof(line), status)) {
        if (!strncmp(line, "Rss", 3))
            fputs(line, stderr);
    }
    fclose(status);
}

static int host(const char *pid, const char *daemon, const char *trace, const char *to, const char *from)
{
    int input = open(to, O_WRONLY);
    FILE *output = fopen(from, "r");
    char line[1024], name[32] = "";
    double used = 0, of_daemon = 0, all, p50, p99;
    int operations;

    if (input < 0 || !output)
        fail("the VMM's standard streams");
    while (fgets(line, sizeof(line), output)) {
        if (sscanf(line, "begin %31s", name) == 1) {
            clear_trace(trace);
            used = cpu_time(pid);
            of_daemon = cpu_time(daemon);
            tracing(trace, "1");
            if (write(input, "\n", 1) != 1)
                fail("write");
        } else if (sscanf(line, "end %d %lf %lf %lf", &operations, &all, &p50, &p99) == 4) {
            tracing(trace, "0");
            used = cpu_time(pid) - used;
            of_daemon = cpu_time(daemon) - of_daemon;
            printf("%s %d %.0f %.1f %.1f %d %.0f %.0f\n", name, operations, all, p50, p99, exits_between_marks(trace), used, of_daemon);
        } else if (!strncmp(line, "done", 4)) {
            print_memory(daemon);
            if (write(input, "\n", 1) != 1)
                fail("write");
            return 0;
        } else {
            fputs(line, stderr);
        }
    }
    fprintf(stderr, "the guest ended in \"%s\"\n", name);
    return 1;
}

int main(int argc, char **argv)
{
    return argc == 6 ? host(argv[1], argv[2], argv[3], argv[4], argv[5]) : guest(argc > 1 ? argv[1] : "");
}
