#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROOT "/sysroot"
#define LOWER "/lower"
#define LAYERS "/layers"
#define MAX_LINKS 8            /* from one to the next, as far as they are followed */
#define DEVICE_TRIES 500       /* until a device's driver has found it */
#define INTERVAL 10000000      /* nanoseconds between two tries: 10 ms */

bool is_root_kept;

/* What cannot be without: the kernel's log has the reason, which the host shows. */
static void __attribute__((noreturn)) give_up(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

static bool try_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *options)
{
    if (mount(source, target, type, flags, options) == 0)
        return true;
    complain("cannot mount %s (%s) on %s: %s", source, type, target, strerror(errno));
    return false;
}

static void make_directory(const char *path, mode_t mode)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        log_line("cannot make %s: %s", path, strerror(errno));
}

static void make_directories_by(const char *path, int links);

/* Where it is a link to nothing, as to what the host has in /tmp, the directory is made that it leads to. */
static void make_directory_by(const char *path, int links)
{
    char target[4096], whole[8192];
    if (mkdir(path, 0755) == 0)
        return;
    int error = errno;
    ssize_t length = error == EEXIST && links > 0 && access(path, F_OK) < 0 ? readlink(path, target, sizeof target - 1) : -1;
    if (length <= 0) {
        if (error != EEXIST)
            log_line("cannot make %s: %s", path, strerror(error));
        return;
    }
    target[length] = 0;
    snprintf(whole, sizeof whole, "%.*s%s", *target == '/' ? 0 : (int)(strrchr(path, '/') + 1 - path), path, target);
    make_directories_by(whole, links - 1);
}

static void make_directories_by(const char *path, int links)
{
    char copy[4096];
    if (strlen(path) >= sizeof copy)
        return;
    strcpy(copy, path);
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        make_directory_by(copy, links);
        *slash = '/';
    }
    make_directory_by(copy, links);
}

/* Each directory of the path, which is absolute, that is not there. */
void make_directories(const char *path)
{
    make_directories_by(path, MAX_LINKS);
}

void mount_initial(void)
{
    make_directory("/dev", 0755);
    make_directory("/proc", 0555);
    make_directory("/sys", 0555);
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
    try_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    try_mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

void wait_a_moment(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = INTERVAL }, NULL);
}

void wait_for_device(const char *path)
{
    for (int i = 0; i < DEVICE_TRIES && access(path, F_OK) < 0; i++)
        wait_a_moment();
}

static const char *root_place(bool is_read_only)
{
    const char *place = is_read_only ? LOWER : ROOT;
    is_root_kept = !is_read_only;
    make_directory(place, 0755);
    return place;
}

void mount_root(const char *type, const char *source, bool is_read_only)
{
    if (!try_mount(source, root_place(is_read_only), type, is_read_only ? MS_RDONLY : 0, NULL))
        give_up();
}

/* A file system that was not unmounted, on a disk that cannot be written, is taken as it is: the last two leave its log alone. */
void mount_disk_root(const char *device, const char *type, bool is_read_only)
{
    static const char *const options[] = { NULL, "noload", "norecovery" };
    const char *place = root_place(is_read_only);
    char path[128];
    snprintf(path, sizeof path, "/dev/%s", device);
    wait_for_device(path);
    keep_disk(device);
    int error = 0;
    for (size_t i = 0; i < (is_read_only ? ARRAY_LENGTH(options) : 1); i++) {
        if (mount(path, place, type, is_read_only ? MS_RDONLY : 0, options[i]) == 0)
            return;
        if (i == 0)
            error = errno;
    }
    log_line("cannot mount %s (%s) as the root: %s", path, type, strerror(error));
    give_up();
}

void mount_overlay_root(const char *size)
{
    char options[128];
    snprintf(options, sizeof options, "mode=0755%s%s", *size ? ",size=" : "", size);
    make_directory(LAYERS, 0755);
    make_directory(ROOT, 0755);
    if (!try_mount("layers", LAYERS, "tmpfs", 0, options))
        give_up();
    make_directory(LAYERS "/upper", 0755);
    make_directory(LAYERS "/work", 0755);
    /* The root directory itself is that of the upper layer. */
    struct stat status;
    if (stat(LOWER, &status) == 0 && chmod(LAYERS "/upper", status.st_mode & 07777) == 0)
        (void)!chown(LAYERS "/upper", status.st_uid, status.st_gid);
    if (!try_mount("root", ROOT, "overlay", 0, "lowerdir=" LOWER ",upperdir=" LAYERS "/upper,workdir=" LAYERS "/work"))
        give_up();
}

static void link_in(const char *target, const char *path)
{
    unlink(path);
    (void)!symlink(target, path);
}

void enter_root(void)
{
    static const char *const directories[] = { "proc", "sys", "dev", "run", "tmp" };
    if (chdir(ROOT) < 0) {
        log_line("no root: %s", strerror(errno));
        give_up();
    }
    for (size_t i = 0; i < ARRAY_LENGTH(directories); i++)
        make_directory(directories[i], 0755);
    for (size_t i = 0; i < 3; i++) { /* /dev last: it leads to the kernel's log */
        char from[8];
        snprintf(from, sizeof from, "/%s", directories[i]);
        if (mount(from, directories[i], NULL, MS_MOVE, NULL) < 0)
            complain("has no %s: the root lacks that directory, and it cannot be made there: %s", from, strerror(errno));
    }
    if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0) {
        log_line("cannot enter the root: %s", strerror(errno));
        give_up();
    }
    make_directory("/dev/pts", 0755);
    make_directory("/dev/shm", 01777);
    try_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5");
    try_mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    try_mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    try_mount("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL); /* a kernel may be without */
    link_in("/proc/self/fd", "/dev/fd");
    link_in("fd/0", "/dev/stdin");
    link_in("fd/1", "/dev/stdout");
    link_in("fd/2", "/dev/stderr");
}

void mount_share(const char *tag, const char *target, bool is_read_only)
{
    make_directories(target);
    if (!try_mount(tag, target, "virtiofs", is_read_only ? MS_RDONLY : 0, NULL))
        give_up();
}
