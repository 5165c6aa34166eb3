/* IPv4 addresses for network interfaces, by the ioctls of netdevice(7), and the resolver. */
#include "agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <net/if.h>
#include <net/route.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define HOSTS "/etc/hosts"
#define RESOLVER "/etc/resolv.conf"

static struct sockaddr internet(in_addr_t address)
{
    struct sockaddr_in internet = { .sin_family = AF_INET, .sin_addr.s_addr = address };
    struct sockaddr generic;
    memcpy(&generic, &internet, sizeof generic);
    return generic;
}

static void bring_up(int fd, const char *name)
{
    struct ifreq request = { 0 };
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    bool is_there = ioctl(fd, SIOCGIFFLAGS, &request) == 0;
    request.ifr_flags |= IFF_UP; /* the others, such as IFF_MULTICAST, stay as the driver has set them */
    if (!is_there || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        complain("cannot bring up %s: %s", name, strerror(errno));
}

void bring_up_loopback(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return; /* a kernel without IPv4 */
    bring_up(fd, "lo");
    close(fd);
}

static bool add_address(int fd, const char *name, const char *address, int prefix)
{
    struct ifreq request = { 0 };
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_addr = internet(inet_addr(address));
    if (ioctl(fd, SIOCSIFADDR, &request) < 0)
        return false;
    request.ifr_netmask = internet(prefix == 0 ? 0 : htonl(~0u << (32 - prefix)));
    return ioctl(fd, SIOCSIFNETMASK, &request) == 0;
}

/* address: 10.0.0.2/24. gateway: empty for none. */
void set_address(const char *name, const char *address, const char *gateway)
{
    char copy[64];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const char *slash = strchr(address, '/');
    size_t length = slash ? (size_t)(slash - address) : strlen(address);
    if (length >= sizeof copy)
        length = sizeof copy - 1;
    memcpy(copy, address, length);
    copy[length] = 0;
    if (fd < 0 || !add_address(fd, name, copy, slash ? atoi(slash + 1) : 32))
        complain("cannot give %s the address %s: %s", name, address, strerror(errno));
    bring_up(fd, name);
    struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
    route.rt_dst = route.rt_genmask = internet(INADDR_ANY);
    route.rt_gateway = internet(inet_addr(gateway));
    if (*gateway && ioctl(fd, SIOCADDRT, &route) < 0)
        complain("cannot route to %s: %s", gateway, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static bool write_resolver(const char *path, const char *address)
{
    char line[64];
    int length = snprintf(line, sizeof line, "nameserver %s\n", address);
    int fd = open_regular(path, O_WRONLY | O_CREAT | O_TRUNC);
    bool is_written = fd >= 0 && write(fd, line, length) == length;
    if (fd >= 0)
        close(fd);
    return is_written;
}

/* A file of a file system of its own, which is mounted on the resolver's and nowhere else: each directory may be one of the host (--bind). For a moment it hides /sys, which nobody
   reads meanwhile. */
static bool mount_resolver(const char *address)
{
    if (mount("resolver", "/sys", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755,size=64k") < 0)
        return false;
    bool is_mounted = write_resolver("/sys/resolv.conf", address) && mount("/sys/resolv.conf", RESOLVER, NULL, MS_BIND, NULL) == 0;
    umount2("/sys", 0);
    return is_mounted;
}

/* Whether the directory, or the one above it that is there, is the host's by virtio-fs and not the root. */
static bool is_bound(const char *directory)
{
    char path[PATH_MAX];
    struct statfs system;
    struct stat root, status;
    snprintf(path, sizeof path, "%s", directory);
    while (statfs(path, &system) < 0) {
        char *slash = strrchr(path, '/');
        if (!slash || slash == path)
            return false;
        *slash = 0;
    }
    return system.f_type == FUSE_SUPER_MAGIC && stat(path, &status) == 0 && stat("/", &root) == 0 && status.st_dev != root.st_dev;
}

/* The file of the root stays as it is: another is mounted on it. Where it is a link to one in /run, which is empty here, that is made. */
void set_resolver(const char *address)
{
    char target[PATH_MAX / 2], directory[PATH_MAX] = "/etc";
    if (!is_root_kept && !is_bound("/etc"))
        make_directories("/etc");
    if (mount_resolver(address))
        return;
    ssize_t length = readlink(RESOLVER, target, sizeof target - 1);
    if (length > 0) {
        target[length] = 0;
        snprintf(directory, sizeof directory, "%s%s", *target == '/' ? "" : "/etc/", target);
        *strrchr(directory, '/') = 0;
    } else if (is_root_kept) {
        complain("resolves no names: the root, which is written (--rw), has no " RESOLVER ": make an empty one there");
        return;
    }
    if (is_bound(directory)) {
        complain("resolves no names: %.256s is a directory of this machine (--bind) without a file for " RESOLVER ": make an empty one there", directory);
        return;
    }
    if (*directory)
        make_directories(directory);
    if (!write_resolver(RESOLVER, address))
        complain("resolves no names: cannot write " RESOLVER ": %s", strerror(errno));
}

static bool has_word(char *line, const char *word)
{
    line[strcspn(line, "#")] = 0;
    for (char *next = strtok(line, " \t\n"); next; next = strtok(NULL, " \t\n"))
        if (strcmp(next, word) == 0)
            return true;
    return false;
}

/* sudo and others look the guest's own name up. A root that is kept stays as it is, and one without /etc has nobody who looks. */
void resolve_own_name(void)
{
    char name[HOST_NAME_MAX + 1], line[1024];
    bool is_known = false, is_empty = true, is_unfinished = false;
    if (is_root_kept || gethostname(name, sizeof name) < 0)
        return;
    FILE *file = open_lines(HOSTS, O_RDWR | O_CREAT | O_APPEND, "a+");
    if (!file)
        return;
    while (!is_known && fgets(line, sizeof line, file)) {
        is_empty = false;
        is_unfinished = !strchr(line, '\n');
        is_known = has_word(line, name);
    }
    if (!is_known)
        fprintf(file, "%s%s127.0.1.1\t%s\n", is_unfinished ? "\n" : "", is_empty ? "127.0.0.1\tlocalhost\n" : "", name);
    fclose(file);
}
