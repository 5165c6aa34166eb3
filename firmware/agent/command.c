/* Starts a command: its pipes or terminal, its session and cgroup, its user. */
#include "agent.h"
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define CGROUPS "/sys/fs/cgroup"

extern char **environ;

struct ends {
    int input, output, error; /* the command's */
};

static bool make_pipe(int *reading, int *writing, bool is_input)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    *reading = ends[0];
    *writing = ends[1];
    /* Ours never waits. */
    int ours = is_input ? ends[1] : ends[0];
    return fcntl(ours, F_SETFL, O_NONBLOCK | fcntl(ours, F_GETFL)) == 0;
}

static bool open_terminal(const struct request *request, struct command *command)
{
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0)
        return false;
    int unlocked = 0;
    command->input = master;
    command->output = fcntl(master, F_DUPFD_CLOEXEC, 0);
    if (command->output < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return false;
    command->terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (command->terminal < 0)
        return false;
    struct winsize size = { .ws_row = request->rows, .ws_col = request->columns };
    ioctl(master, TIOCSWINSZ, &size);
    /* The erase key takes a whole character. */
    struct termios settings;
    if (tcgetattr(command->terminal, &settings) == 0) {
        settings.c_iflag |= IUTF8;
        tcsetattr(command->terminal, TCSANOW, &settings);
    }
    return true;
}

static bool open_streams(const struct request *request, struct command *command, struct ends *ends)
{
    if (request->flags & START_TERMINAL) {
        if (!open_terminal(request, command))
            return false;
        ends->input = ends->output = command->terminal;
    } else if (!make_pipe(&ends->input, &command->input, true) || !make_pipe(&command->output, &ends->output, false)) {
        return false;
    }
    if (request->flags & START_TERMINAL_ERROR)
        ends->error = command->terminal;
    else if (request->flags & START_ERROR_IS_OUTPUT)
        ends->error = ends->output;
    else if (!make_pipe(&command->error, &ends->error, false))
        return false;
    return true;
}

/* A cgroup of its own, where there is cgroup2 and it may be made. */
static void make_cgroup(struct command *command)
{
    command->cgroup[0] = 0;
    char path[sizeof command->cgroup];
    snprintf(path, sizeof path, CGROUPS "/exec-%d", (int)getpid());
    if (is_guest && access(CGROUPS "/cgroup.procs", W_OK) == 0 && mkdir(path, 0755) == 0)
        strcpy(command->cgroup, path);
}

static void join_cgroup(const struct command *command)
{
    char path[128];
    if (!command->cgroup[0])
        return;
    snprintf(path, sizeof path, "%s/cgroup.procs", command->cgroup);
    write_text(path, "0");
}

/* A child that is in the command's cgroup from the start: a process that joins one later waits for a grace period of the kernel's. */
static pid_t fork_into_cgroup(const struct command *command)
{
    int cgroup = command->cgroup[0] ? open(command->cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    if (cgroup >= 0) {
        struct clone_args how = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = cgroup };
        pid_t id = (pid_t)syscall(SYS_clone3, &how, sizeof how); /* Linux 5.7 */
        if (id == 0)
            return 0;
        close(cgroup);
        if (id > 0)
            return id;
    }
    pid_t id = fork();
    if (id == 0)
        join_cgroup(command);
    return id;
}

void remove_cgroup(const struct command *command)
{
    if (command->cgroup[0])
        rmdir(command->cgroup);
}

/* The command and all that it has started. */
void kill_command(const struct command *command)
{
    char path[128];
    if (command->cgroup[0]) {
        snprintf(path, sizeof path, "%s/cgroup.kill", command->cgroup); /* Linux 5.14 */
        write_text(path, "1");
    }
    kill(-command->id, SIGKILL);
}

/* The child cannot become the command. It says so on a pipe that a successful exec closes. */
static void __attribute__((noreturn, format(printf, 3, 4))) fail(int reports, bool is_of_command, const char *format, ...)
{
    struct failure report = { .is_of_command = is_of_command, .error = errno };
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report.what, sizeof report.what, format, arguments);
    va_end(arguments);
    (void)!write(reports, &report, sizeof report);
    _exit(127);
}

static void set_default(const char *name, const char *value)
{
    setenv(name, value, 0);
}

/* Where the guest lacks the host's directory, the command runs in /, and is told so. Where what it does to / stays, it runs in an empty directory of its
   own: `rm -rf *` was meant for another one. /dev/shm is in memory; /tmp may have a directory of the host in it, or be one. Returns the error number of the host's directory, or 0. */
static int go_to_directory(const struct request *request, int reports)
{
    char empty[] = "/dev/shm/vmm-exec-XXXXXX";
    if (chdir(request->directory) == 0)
        return 0;
    int error = errno;
    if (!(request->flags & START_DIRECTORY_OPTIONAL))
        fail(reports, false, "cannot go to %s", request->directory);
    if (is_root_kept && !mkdtemp(empty))
        fail(reports, false, "the root is written (--rw), so the command needs a working directory (--workdir): cannot make an empty one in /dev/shm");
    const char *place = is_root_kept ? empty : "/";
    if (chdir(place) < 0)
        fail(reports, false, "cannot go to %s", place);
    if (!(request->flags & START_QUIET))
        dprintf(STDERR_FILENO, "vmm: cannot go to %.256s: %s: the command runs in %s (--bind brings a directory of this machine, --workdir gives another one)\n", request->directory,
                strerror(error), place);
    return error;
}

/* A relative path means something else where the command is not in the host's directory, and what is said of that on standard error is read no more. */
static void __attribute__((noreturn)) fail_to_execute(int reports, const char *program, const char *directory, int directory_error)
{
    int error = errno;
    if (directory_error == 0 || *program == '/' || !strchr(program, '/'))
        fail(reports, true, "%s", program);
    const char *place = getcwd((char[4096]){ 0 }, 4096) ? : "/";
    errno = error;
    fail(reports, true, "%.100s in %.40s (cannot go to %.100s: %s; --bind brings a directory of this machine, --workdir gives another one)", program, place, directory, strerror(directory_error));
}

static bool is_elf(const char *path)
{
    char start[4];
    int fd = open_regular(path, O_RDONLY);
    bool is = fd >= 0 && read(fd, start, sizeof start) == sizeof start && memcmp(start, "\177ELF", sizeof start) == 0;
    if (fd >= 0)
        close(fd);
    return is;
}

/* /bin/sh runs a file that is no program, as execvp(3) has it. But a program of another machine is no script, and a root without /bin/sh has none that could run one. */
static void execute_file(char *path, char **arguments)
{
    execv(path, arguments);
    if (errno != ENOEXEC || is_elf(path))
        return;
    size_t count = 0;
    while (arguments[count])
        count++;
    char **script = calloc(count + 2, sizeof *script);
    if (script) {
        script[0] = "/bin/sh";
        script[1] = path;
        memcpy(script + 2, arguments + 1, count * sizeof *script); /* with the NULL */
        execv(script[0], script);
    }
    errno = ENOEXEC;
}

/* As execvp(3) does: by PATH unless the name has a slash. */
static void execute(char **arguments)
{
    const char *name = arguments[0];
    bool is_refused = false;
    if (!*name) {
        errno = ENOENT;
        return;
    }
    if (strchr(name, '/')) {
        execute_file(arguments[0], arguments);
        return;
    }
    for (const char *place = getenv("PATH"), *end; place; place = *end ? end + 1 : NULL) {
        char *path;
        end = strchrnul(place, ':');
        if (asprintf(&path, "%.*s%s%s", (int)(end - place), place, end > place ? "/" : "", name) < 0)
            return;
        execute_file(path, arguments);
        int error = errno;
        free(path);
        is_refused |= error == EACCES;
        if (error != EACCES && error != ENOENT && error != ENOTDIR && error != ENODEV && error != ETIMEDOUT && error != ESTALE) {
            errno = error;
            return;
        }
    }
    errno = is_refused ? EACCES : ENOENT;
}

/* PWD stays where it leads to the working directory, as in a shell: links may be a part of it. */
static void set_pwd(void)
{
    struct stat here, named;
    const char *pwd = getenv("PWD");
    if (pwd && *pwd == '/' && stat(".", &here) == 0 && stat(pwd, &named) == 0 && here.st_dev == named.st_dev && here.st_ino == named.st_ino)
        return;
    setenv("PWD", getcwd((char[4096]){ 0 }, 4096) ? : "/", 1);
}

static void become(const struct request *request, const struct command *command, const struct ends *ends, int reports)
{
    struct user user;
    setsid();
    write_text("/proc/self/oom_score_adj", "0");
    if (command->terminal >= 0 && ioctl(command->terminal, TIOCSCTTY, 0) < 0)
        fail(reports, false, "cannot take the terminal");
    if (!find_user(*request->user ? request->user : "root", &user)) {
        errno = 0;
        fail(reports, false, "there is no user %s in /etc/passwd, or no such group in /etc/group", request->user);
    }
    /* So that the user may open /dev/stdout and the like. */
    (void)!fchown(ends->input, user.id, (gid_t)-1);
    (void)!fchown(ends->output, user.id, (gid_t)-1);
    (void)!fchown(ends->error, user.id, (gid_t)-1);
    if (dup2(ends->input, 0) < 0 || dup2(ends->output, 1) < 0 || dup2(ends->error, 2) < 0)
        fail(reports, false, "dup2");
    if (*request->user && (setgroups(user.group_count, user.groups) < 0 || setgid(user.group) < 0 || setuid(user.id) < 0))
        fail(reports, false, "cannot become user %s", request->user);
    environ = request->environment;
    set_default("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    set_default("HOME", user.home);
    set_default("USER", user.name);
    set_default("LOGNAME", user.name);
    if (!(request->flags & START_QUIET))
        tell_complaints(STDERR_FILENO);
    int directory_error = go_to_directory(request, reports);
    umask(request->umask);
    set_pwd();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (request->arguments[0]) {
        execute(request->arguments);
        fail_to_execute(reports, request->arguments[0], request->directory, directory_error);
    }
    const char *shell = getenv("SHELL");
    if (!shell || access(shell, X_OK) < 0)
        shell = access(user.shell, X_OK) == 0 ? user.shell : "/bin/sh";
    execl(shell, shell, (char *)NULL);
    fail(reports, true, "%s", shell);
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

bool start_command(const struct request *request, struct command *command, struct failure *failure)
{
    struct ends ends = { -1, -1, -1 };
    int reports[2] = { -1, -1 };
    *command = (struct command){ .id = -1, .input = -1, .output = -1, .error = -1, .terminal = -1 };
    *failure = (struct failure){ .what = "cannot start a process" };
    if (!open_streams(request, command, &ends) || pipe2(reports, O_CLOEXEC) < 0) {
        failure->error = errno;
        return false;
    }
    make_cgroup(command);
    command->id = fork_into_cgroup(command);
    if (command->id == 0)
        become(request, command, &ends, reports[1]);
    failure->error = errno;
    if (command->terminal < 0) {
        close_if_open(ends.input);
        close_if_open(ends.output);
    }
    if (command->error >= 0)
        close_if_open(ends.error);
    close(reports[1]);
    struct failure report;
    ssize_t count;
    while ((count = read(reports[0], &report, sizeof report)) < 0 && errno == EINTR)
        ;
    close(reports[0]);
    if (command->id < 0)
        return false;
    if (count != sizeof report)
        return true;
    waitpid(command->id, NULL, 0);
    remove_cgroup(command);
    *failure = report;
    return false;
}
