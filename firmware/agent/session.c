/* A session: one host, one command (docs/agent.md). One thread waits for everything. What is sent to the host waits until it is
   taken: the host always reads, as the windows bound what it has to keep. Nothing else waits. */
#include "agent.h"
#include "protocol.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE 10000 /* milliseconds */

struct output {
    enum stream stream;
    int fd;          /* -1 once its end was sent */
    uint32_t window; /* bytes that the host still takes */
};

struct session {
    int connection;
    bool is_main;
    struct command command;
    int status; /* as waitpid has it */
    bool has_ended;
    uint64_t unanswered; /* signals of the host, a bit each, from 1 on */
    struct failure failure; /* why there is no command, if there is none */
    pid_t unmounter;        /* the process that runs make_quiet; 0 while there is none */
    struct memory memory;
    struct output outputs[2];
    struct input input;
};

static void __attribute__((noreturn)) leave(struct session *session)
{
    if (session->unmounter > 0) {
        waitpid(session->unmounter, NULL, 0); /* nobody else is left, and the first process waits for this one */
    } else if (session->command.id > 0) {
        kill_command(&session->command);
        kill_descendants();
    }
    _exit(1);
}

static void send_all(struct session *session, const void *data, size_t length)
{
    for (const char *next = data; length > 0;) {
        ssize_t count = write(session->connection, next, length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            leave(session);
        next += count;
        length -= count;
    }
}

static void send_frame(struct session *session, enum frame_type type, uint8_t stream, const void *data, uint32_t length)
{
    unsigned char frame[sizeof(struct frame) + 512];
    struct frame header = { .type = type, .stream = stream, .length = length };
    if (length > sizeof frame - sizeof header)
        leave(session);
    memcpy(frame, &header, sizeof header);
    if (length > 0)
        memcpy(frame + sizeof header, data, length);
    send_all(session, frame, sizeof header + length);
}

static void send_number(struct session *session, enum frame_type type, uint8_t stream, uint32_t number)
{
    send_frame(session, type, stream, &number, sizeof number);
}

static void receive_all(struct session *session, void *data, size_t length)
{
    for (char *next = data; length > 0;) {
        ssize_t count = read(session->connection, next, length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            leave(session);
        next += count;
        length -= count;
    }
}

static void send_hello(struct session *session)
{
    struct hello {
        uint32_t magic, version, modules, mounts, now;
        char release[65];
    } hello = {
        .magic = PROTOCOL_MAGIC, .version = PROTOCOL_VERSION, .modules = times.modules, .mounts = times.mounts, .now = microseconds()
    };
    struct utsname name;
    if (uname(&name) == 0)
        memcpy(hello.release, name.release, sizeof hello.release - 1);
    send_frame(session, FRAME_HELLO, 0, &hello, offsetof(struct hello, release) + strlen(hello.release));
}

static void send_exit(struct session *session, enum exit_kind kind, uint32_t value, const char *what)
{
    struct {
        uint32_t kind, value, kills;
        char what[MAX_TEXT];
    } end = { .kind = kind, .value = value, .kills = session->memory.kills };
    snprintf(end.what, sizeof end.what, "%s", what);
    send_frame(session, FRAME_EXIT, 0, &end, 3 * sizeof(uint32_t) + strlen(end.what));
}

/* The first frame, and what comes of it. Returns false if that is no command. */
static bool begin(struct session *session)
{
    struct frame frame;
    struct request request;
    receive_all(session, &frame, sizeof frame);
    if (frame.type != FRAME_START || frame.length > MAX_START)
        leave(session);
    char *data = malloc(frame.length + 1);
    if (!data)
        leave(session);
    receive_all(session, data, frame.length);
    if (!parse_request(data, frame.length, &request))
        leave(session);
    watch_memory(&session->memory);
    bool is_started = start_command(&request, &session->command, &session->failure);
    free(request.arguments);
    free(request.environment);
    free(data);
    if (!is_started)
        return false;
    open_input(&session->input, session->command.input, session->command.terminal >= 0);
    session->outputs[0] = (struct output){ STREAM_OUTPUT, session->command.output, WINDOW };
    session->outputs[1] = (struct output){ STREAM_ERROR, session->command.error, WINDOW };
    send_number(session, FRAME_STARTED, 0, session->command.id);
    return true;
}

static void receive_input(struct session *session, uint32_t length)
{
    unsigned char data[MAX_DATA];
    receive_all(session, data, length);
    if (!add_input(&session->input, data, length))
        leave(session);
}

static void pass_input(struct session *session)
{
    if (!write_input(&session->input)) {
        send_frame(session, FRAME_CLOSED, STREAM_INPUT, NULL, 0);
        return;
    }
    uint32_t count = input_to_give_back(&session->input);
    if (count > 0)
        send_number(session, FRAME_WINDOW, STREAM_INPUT, count);
}

static void close_output(struct session *session, struct output *output)
{
    if (output->fd < 0)
        return;
    close(output->fd);
    output->fd = -1;
    send_frame(session, FRAME_END, output->stream, NULL, 0);
}

static void pass_output(struct session *session, struct output *output)
{
    static unsigned char frame[sizeof(struct frame) + MAX_DATA];
    size_t room = output->window < MAX_DATA ? output->window : MAX_DATA;
    ssize_t count = read(output->fd, frame + sizeof(struct frame), room);
    if (count < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (count <= 0) { /* a terminal that nobody has open any more says EIO */
        close_output(session, output);
        return;
    }
    struct frame header = { .type = FRAME_DATA, .stream = output->stream, .length = count };
    memcpy(frame, &header, sizeof header);
    output->window -= count;
    send_all(session, frame, sizeof header + count);
}

static struct output *output_of(struct session *session, uint8_t stream)
{
    if (stream != STREAM_OUTPUT && stream != STREAM_ERROR)
        leave(session);
    return &session->outputs[stream - STREAM_OUTPUT];
}

/* Whether nothing but the output of what the command has left is waited for. It was killed: a process that is still there cannot be, or is of another session. */
static bool is_output_awaited(const struct session *session)
{
    bool is_open = false;
    for (size_t i = 0; i < ARRAY_LENGTH(session->outputs); i++) {
        if (session->outputs[i].fd < 0)
            continue;
        if (session->outputs[i].window == 0)
            return false;
        is_open = true;
    }
    return session->has_ended && is_open;
}

/* While nothing but output is awaited, the host hears nothing: if that takes too long, it ends the guest. */
static void answer_signals(struct session *session)
{
    if (session->unanswered == 0 || is_output_awaited(session))
        return;
    for (uint32_t number = 1; number < (uint32_t)NSIG; number++)
        if (session->unanswered & (UINT64_C(1) << (number - 1)))
            send_number(session, FRAME_SIGNALLED, 0, number);
    session->unanswered = 0;
}

static void send_signal(struct session *session, uint32_t number)
{
    if (number == 0 || number >= (uint32_t)NSIG) {
        send_number(session, FRAME_SIGNALLED, 0, number);
        return;
    }
    if (!session->has_ended) {
        /* Those that a terminal sends go to the whole job, as a terminal's do. */
        bool is_of_terminal = number == SIGINT || number == SIGQUIT || number == SIGHUP || number == SIGWINCH;
        kill(is_of_terminal ? -session->command.id : session->command.id, (int)number);
    }
    session->unanswered |= UINT64_C(1) << (number - 1);
    answer_signals(session);
}

static void resize(struct session *session, uint32_t size)
{
    struct winsize window = { .ws_row = size & 0xffff, .ws_col = size >> 16 }, before;
    int terminal = session->input.fd;
    if (!session->input.is_terminal || terminal < 0)
        return;
    bool is_new = ioctl(terminal, TIOCGWINSZ, &before) < 0 || before.ws_row != window.ws_row || before.ws_col != window.ws_col;
    ioctl(terminal, TIOCSWINSZ, &window);
    /* Of a size that is none the kernel tells nobody, and the host's SIGWINCH was sent all the same. */
    pid_t group = is_new ? -1 : tcgetpgrp(terminal);
    if (group > 0)
        kill(-group, SIGWINCH);
}

static void handle_frame(struct session *session)
{
    struct frame frame;
    uint32_t number = 0;
    receive_all(session, &frame, sizeof frame);
    if (frame.type == FRAME_DATA) {
        if (frame.stream != STREAM_INPUT || frame.length > MAX_DATA)
            leave(session);
        receive_input(session, frame.length);
        return;
    }
    if (frame.length > sizeof number)
        leave(session);
    receive_all(session, &number, frame.length);
    switch (frame.type) {
    case FRAME_END:
        end_input(&session->input);
        break;
    case FRAME_WINDOW:
        if (number > WINDOW - output_of(session, frame.stream)->window)
            leave(session);
        output_of(session, frame.stream)->window += number;
        break;
    case FRAME_CLOSED:
        close_output(session, output_of(session, frame.stream));
        /* Whoever still has the terminal open is hung up, as on the host. */
        if (session->input.is_terminal && session->input.fd >= 0 && frame.stream == STREAM_OUTPUT) {
            send_frame(session, FRAME_CLOSED, STREAM_INPUT, NULL, 0);
            close_input(&session->input);
        }
        break;
    case FRAME_SIGNAL:
        send_signal(session, number);
        break;
    case FRAME_RESIZE:
        resize(session, number);
        break;
    case FRAME_LOG:
        show_kernel_log();
        send_frame(session, FRAME_LOGGED, 0, NULL, 0);
        break;
    default:
        leave(session);
    }
}

/* The command has ended: what it has left running is ended too, so that its output has an end. */
static void command_has_ended(struct session *session, int status)
{
    session->has_ended = true;
    session->status = status;
    kill_command(&session->command);
    if (session->is_main)
        kill(-1, SIGKILL); /* all but the first process and this one */
    if (session->command.terminal >= 0)
        close(session->command.terminal);
    session->command.terminal = -1;
    close_input(&session->input);
}

/* Children have ended: the command, or what it has left and this process has adopted. */
static void reap(struct session *session, int signals)
{
    struct signalfd_siginfo information;
    int status;
    pid_t id;
    (void)!read(signals, &information, sizeof information);
    while ((id = waitpid(-1, &status, WNOHANG)) > 0) {
        if (id == session->command.id && !session->has_ended)
            command_has_ended(session, status);
        if (id == session->unmounter)
            session->unmounter = 0;
    }
    /* Of the guest's own session nobody is left. */
    if (session->has_ended && !session->is_main)
        kill_children();
}

static void give_up_output(struct session *session)
{
    if (session->is_main)
        log_line("does not wait for the end of the command's output, which a process that cannot be ended has open");
    for (size_t i = 0; i < ARRAY_LENGTH(session->outputs); i++)
        close_output(session, &session->outputs[i]);
}

/* Returns false if nothing has come within so many milliseconds. */
static bool wait_once(struct session *session, int signals, int timeout)
{
    struct output *output = &session->outputs[0], *error = &session->outputs[1];
    struct pollfd entries[] = {
        { .fd = session->connection, .events = POLLIN },
        { .fd = signals, .events = POLLIN },
        { .fd = session->input.fd, .events = has_input_to_write(&session->input) ? POLLOUT : 0 },
        { .fd = output->window > 0 ? output->fd : -1, .events = POLLIN },
        { .fd = error->window > 0 ? error->fd : -1, .events = POLLIN },
    };
    int ready = poll(entries, ARRAY_LENGTH(entries), timeout);
    if (ready <= 0)
        return ready < 0;
    if (entries[3].revents)
        pass_output(session, output);
    if (entries[4].revents)
        pass_output(session, error);
    if (entries[2].revents & POLLOUT) {
        pass_input(session);
    } else if (entries[2].revents & POLLERR) { /* nobody has its other end any more */
        send_frame(session, FRAME_CLOSED, STREAM_INPUT, NULL, 0);
        close_input(&session->input);
    }
    if (entries[1].revents)
        reap(session, signals);
    if (entries[0].revents)
        handle_frame(session);
    return true;
}

static bool has_children(void)
{
    siginfo_t information;
    return waitid(P_ALL, 0, &information, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* What was killed is gone: one that still frees its memory has its files open. And the guest's disks are unmounted. A disk may take its time for that: the host's frames are answered
   meanwhile. */
static void end_the_rest(struct session *session, int signals)
{
    uint32_t start = microseconds();
    int left;
    while (has_children() && (left = LAST_MOMENT - (int)((microseconds() - start) / 1000)) > 0)
        wait_once(session, signals, left);
    if (!session->is_main)
        return;
    session->unmounter = fork();
    if (session->unmounter <= 0) {
        make_quiet();
        if (session->unmounter == 0)
            _exit(0);
    }
    while (session->unmounter > 0)
        wait_once(session, signals, -1);
}

/* The host ends the connection once it has read EXIT. If the machine were switched off before, it might not get that. */
static void wait_for_host(int connection)
{
    char data[512];
    struct pollfd entry = { .fd = connection, .events = POLLIN };
    while (poll(&entry, 1, PATIENCE) > 0 && read(connection, data, sizeof data) > 0)
        ;
}

static void send_end(struct session *session)
{
    if (!session->has_ended) {
        send_exit(session, session->failure.is_of_command ? EXIT_COMMAND : EXIT_PREPARE, session->failure.error, session->failure.what);
        return;
    }
    find_kills(&session->memory, session->command.id);
    if (!WIFSIGNALED(session->status))
        send_exit(session, EXIT_STATUS, WEXITSTATUS(session->status), "");
    else if (WTERMSIG(session->status) == SIGKILL && session->memory.has_killed_command)
        send_exit(session, EXIT_MEMORY, SIGKILL, "");
    else
        send_exit(session, EXIT_SIGNAL, WTERMSIG(session->status), "");
}

void serve(int connection, bool is_main)
{
    static struct session session;
    session.connection = connection;
    session.is_main = is_main;
    session.input.fd = session.outputs[0].fd = session.outputs[1].fd = -1;
    signal(SIGPIPE, SIG_IGN); /* a command that stops reading is no reason to die */
    adopt_descendants();
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int children = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (children < 0)
        leave(&session);
    send_hello(&session);
    if (begin(&session)) {
        while (!session.has_ended || session.outputs[0].fd >= 0 || session.outputs[1].fd >= 0) {
            if (!wait_once(&session, children, is_output_awaited(&session) ? PATIENCE : -1))
                give_up_output(&session);
            answer_signals(&session);
        }
    } else if (is_main) {
        kill(-1, SIGKILL); /* the commands of other sessions */
    }
    end_the_rest(&session, children);
    remove_cgroup(&session.command);
    send_end(&session);
    wait_for_host(connection);
}
