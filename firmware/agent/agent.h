/* Init and agent of the guests of `vmm exec`. docs/agent.md describes what it does and the protocol that it speaks. */
#ifndef AGENT_H
#define AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "protocol.h"

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Whether this is the guest's first process or a child of it: only then is the machine the agent's to change. */
extern bool is_guest;

/* main.c: how long after the agent's start, in microseconds, init had done what the name says. */
extern struct times {
    uint32_t modules; /* loaded */
    uint32_t mounts;  /* and the rest of the description */
} times;
uint32_t microseconds(void);

/* log.c: a line in the kernel's log, which the host's console shows. Others are read, so many at once: whoever is root in the guest can write more and more. */
#define MAX_RECORD 8192
#define MAX_RECORDS 100000
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same of what the user has asked for and the guest goes on without, in words that go on after "the guest": the guest's first command has it on its standard error, too. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tell_complaints(int fd);
void forget_complaints(void);
bool read_record(int log, char *record, size_t size);
void show_kernel_log(void);

/* description.c: the way to the host, a console such as hvc0 or, if that is empty, a vsock port; and the file in the initramfs that says what to do. */
extern char host_console[32];
extern unsigned int host_port;
void run_description(const char *path);

/* mounts.c: whether what the guest writes to its root stays after its end. */
extern bool is_root_kept;
void mount_initial(void);
void wait_for_device(const char *path);
void mount_overlay_root(const char *size);
void mount_root(const char *type, const char *source, bool is_read_only);
void mount_disk_root(const char *device, const char *type, bool is_read_only);
void enter_root(void);
void mount_share(const char *tag, const char *target, bool is_read_only);
void make_directories(const char *path);
void wait_a_moment(void);

/* unmount.c */
void keep_disk(const char *name);
void make_quiet(void);

/* network.c */
void bring_up_loopback(void);
void set_address(const char *name, const char *address, const char *gateway);
void set_resolver(const char *address);
void resolve_own_name(void);

/* files.c */
void write_text(const char *path, const char *text);
int open_regular(const char *path, int flags);
FILE *open_lines(const char *path, int flags, const char *mode);

/* input.c */
struct input {
    int fd;                      /* the command's standard input, or the master of its terminal; -1 once it is closed */
    bool is_terminal;
    unsigned char bytes[WINDOW]; /* a ring */
    size_t start, count;
    uint32_t taken;              /* written, and not yet given back to the host */
    bool is_over;                /* the host sends no more */
    bool is_line_unfinished;     /* the last byte that came ended no line */
    unsigned int ends_to_type;   /* so many Ctrl-D are still to be written to the terminal */
};

void open_input(struct input *input, int fd, bool is_terminal);
void close_input(struct input *input);
bool add_input(struct input *input, const unsigned char *data, size_t length);
void end_input(struct input *input);
bool has_input_to_write(const struct input *input);
bool write_input(struct input *input);
uint32_t input_to_give_back(struct input *input);

/* session.c: serves one host over a connected stream socket or a raw console, from HELLO to EXIT. */
void serve(int connection, bool is_main);

/* request.c */
struct request {
    uint32_t flags;         /* START_ of protocol.h */
    uint16_t rows, columns; /* of the terminal, 0 where unknown */
    mode_t umask;
    char *directory;
    char *user;
    char **arguments; /* ends with NULL; may be empty */
    char **environment;
};

bool parse_request(char *data, uint32_t length, struct request *request);

/* command.c */
struct command {
    pid_t id;
    int input;    /* write end of its standard input, non-blocking; -1 for none */
    int output;   /* read ends; non-blocking */
    int error;    /* -1 where standard error is the terminal, or standard output */
    int terminal; /* the terminal's own end, open for as long as the command runs; -1 without one */
    char cgroup[64];
};

#define MAX_TEXT 480 /* of EXIT, with the null byte: a frame has 512 bytes at most */
struct failure {
    bool is_of_command; /* the program could not be executed; otherwise something before that failed */
    int error;
    char what[MAX_TEXT];
};

bool start_command(const struct request *request, struct command *command, struct failure *failure);
void kill_command(const struct command *command);
void remove_cgroup(const struct command *command);

/* memory.c */
struct memory {
    int log;                 /* the kernel's, from the start of the session on; -1 where it cannot be read */
    unsigned long before;    /* what the kernel had killed before */
    unsigned long told;      /* what it has told of since */
    uint32_t kills;          /* of these, what it has killed because the guest as a whole was out of memory */
    bool has_killed_command; /* one of them was the command itself */
};

void watch_memory(struct memory *memory);
void find_kills(struct memory *memory, pid_t command);

/* children.c */
#define LAST_MOMENT 2000 /* milliseconds for killed processes to be gone */
void adopt_descendants(void);
int kill_children(void);
void kill_descendants(void);

/* users.c */
struct user {
    uid_t id;
    gid_t group;
    gid_t *groups;
    size_t group_count;
    char name[64], home[256], shell[256];
};

bool find_user(const char *text, struct user *user);

#endif
