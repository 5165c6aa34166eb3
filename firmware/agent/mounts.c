#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROOT "/sysroot"
#define LOWER "/lower"
#define LAYERS "/layers"
#define MAX_MOUNTS 4096
#define MAX_LINKS 8            /* from one to the next, as far as they are followed */
#define DEVICE_TRIES 500       /* until a device's driver has found it */
#define END_TRIES 200          /* until killed processes have closed their files, for all mounts */
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
    log_line("cannot mount %s (%s) on %s: %s", source, type, target, strerror(errno));
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

static void wait_a_moment(void)
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
            log_line("the root has no %s, and none can be made there: %s", from, strerror(errno));
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

static bool make_read_only(const char *target)
{
    return mount(NULL, target, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0;
}

/* The root stays mounted, and nothing more is written to it. */
static bool end_mount(const char *target)
{
    return strcmp(target, "/") == 0 ? make_read_only(target) : umount2(target, 0) == 0;
}

static bool is_in(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return length > 1 && strncmp(path, directory, length) == 0 && (path[length] == '/' || !path[length]);
}

/* What is mounted in a file system holds it. What is mounted over it hides it: neither can be unmounted before that. */
static bool hinders_one_of(const char *path, char *const *targets, size_t count)
{
    while (count-- > 0)
        if (targets[count] && (is_in(path, targets[count]) || is_in(targets[count], path)))
            return true;
    return false;
}

/* The lines have their names as those of /proc/mounts have them. */
static void end_swap(void)
{
    FILE *swaps = setmntent("/proc/swaps", "re");
    struct mntent *entry;
    while (swaps && (entry = getmntent(swaps)))
        if (*entry->mnt_fsname == '/' && swapoff(entry->mnt_fsname) < 0)
            log_line("cannot end swap on %s: %s", entry->mnt_fsname, strerror(errno));
    if (swaps)
        endmntent(swaps);
}

/* One that is in use ends with its last user. */
static void end_loop_devices(void)
{
    char path[300];
    DIR *devices = opendir("/sys/block");
    struct dirent *entry;
    while (devices && (entry = readdir(devices))) {
        if (strncmp(entry->d_name, "loop", 4) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        ioctl(fd, LOOP_CLR_FD, 0); /* ENXIO: it has no file */
        close(fd);
    }
    if (devices)
        closedir(devices);
}

/* On a disk, in one that is or over it, or an overlay, whose layers may be on one. */
static bool holds_a_disk(const struct mntent *entry, char *const *targets, size_t count)
{
    return strncmp(entry->mnt_fsname, "/dev/", 5) == 0 || hinders_one_of(entry->mnt_dir, targets, count)
        || (strcmp(entry->mnt_type, "overlay") == 0 && strcmp(entry->mnt_dir, "/") != 0);
}

/* Everything that was written is where it belongs, and file systems on disks are unmounted. The last mount goes first. */
void make_quiet(void)
{
    static char *targets[MAX_MOUNTS];
    size_t count = 0;
    end_swap();
    end_loop_devices();
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    struct mntent *entry;
    while (mounts && count < MAX_MOUNTS && (entry = getmntent(mounts)))
        if (holds_a_disk(entry, targets, count))
            targets[count++] = strdup(entry->mnt_dir);
    if (mounts)
        endmntent(mounts);
    sync();
    for (int tries = END_TRIES; count-- > 0;) {
        if (!targets[count])
            continue;
        bool is_ended;
        while (!(is_ended = end_mount(targets[count])) && errno == EBUSY && tries-- > 0)
            wait_a_moment();
        if (!is_ended && !make_read_only(targets[count]))
            log_line("cannot unmount %s: %s", targets[count], strerror(errno));
    }
}
