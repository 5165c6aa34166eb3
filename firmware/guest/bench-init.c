/* The shortest life of a guest's user space, for measurements: one line on the console, then power off. A number as its
 * argument ("-- 30" on the kernel's command line) makes it sleep that many seconds in between. A second argument makes
 * it reset the guest instead, for a VMM whose guests have no way to power off.
 * Writes to an unused I/O port mark its start (1) and the moment when its line is out (2), for the host's tracing. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/io.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>

#define MARK_PORT 0xf4

int main(int argc, char **argv)
{
    int console, marks = ioperm(MARK_PORT, 1, 1) == 0;

    if (marks)
        outb(1, MARK_PORT);
    console = open("/dev/console", O_WRONLY | O_NOCTTY);
    if (console < 0 || write(console, "init\n", 5) != 5)
        return 1; /* the kernel panics, which no one can miss */
    if (argc > 1)
        sleep(atoi(argv[1]));
    tcdrain(console);
    if (marks)
        outb(2, MARK_PORT);
    return reboot(argc > 2 ? RB_AUTOBOOT : RB_POWER_OFF);
}
