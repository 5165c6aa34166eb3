/* A command that does not end. */
#include <unistd.h>

int main(void)
{
    for (;;)
        pause();
}
