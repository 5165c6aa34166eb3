/* The protocol between the agent and vmm, version 5 (docs/agent.md). Numbers are little-endian. */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include <stdint.h>

#define PROTOCOL_MAGIC 0x414d4d56u /* "VMMA" */
#define PROTOCOL_VERSION 5u

#define MAX_DATA (64u << 10)   /* bytes in a DATA frame */
#define MAX_START (16u << 20)  /* bytes in a START frame */
#define WINDOW (256u << 10)    /* bytes of a stream that may be sent before the other side gives more */

struct frame {
    uint8_t type;
    uint8_t stream;
    uint16_t reserved;
    uint32_t length; /* bytes that follow */
};

enum frame_type {
    FRAME_HELLO = 1,      /* agent: magic, version, times, the kernel's release */
    FRAME_START = 2,      /* host: the command */
    FRAME_STARTED = 3,    /* agent: its process id */
    FRAME_DATA = 4,       /* both */
    FRAME_END = 5,        /* both: this side sends no more on the stream */
    FRAME_WINDOW = 6,     /* both: so many bytes more may be sent on the stream */
    FRAME_CLOSED = 7,     /* both: nobody reads the stream here any more */
    FRAME_SIGNAL = 8,     /* host: a signal for the command */
    FRAME_SIGNALLED = 9,  /* agent: it was sent */
    FRAME_RESIZE = 10,    /* host: the terminal's rows and columns */
    FRAME_EXIT = 11,      /* agent: the command's end, and the last frame */
    FRAME_LOG = 12,       /* host: show what the kernel has said last on the serial port */
    FRAME_LOGGED = 13,    /* agent: that was done */
};

enum stream { STREAM_INPUT = 0, STREAM_OUTPUT = 1, STREAM_ERROR = 2 };

/* How START begins; behind it come texts. */
struct start {
    uint32_t flags; /* enum start_flag */
    uint16_t rows, columns;
    uint32_t arguments, variables; /* how many texts */
    uint32_t umask;
};

enum start_flag {
    START_TERMINAL = 1,           /* streams 0 and 1 are a terminal */
    START_TERMINAL_ERROR = 2,     /* so is stream 2, whose output comes on stream 1 */
    START_DIRECTORY_OPTIONAL = 4, /* a working directory that is not there is / or, where the root is written, an empty one */
    START_ERROR_IS_OUTPUT = 8,    /* stream 2 is stream 1, one file on the host; not with a terminal */
    START_QUIET = 16,             /* the agent itself writes nothing to stream 2 */
};

enum exit_kind {
    EXIT_STATUS = 0,   /* value: the command's exit status */
    EXIT_SIGNAL = 1,   /* value: the signal that killed it */
    EXIT_COMMAND = 2,  /* value: the error number with which the program could not be executed */
    EXIT_PREPARE = 3,  /* value: the error number of what failed before that, or 0 */
    EXIT_MEMORY = 4,   /* value: SIGKILL, by which the kernel killed the command, as the guest was out of memory */
};

#endif
