/* lab_freeze TID - holds one thread of a process still until its own stdin ends: what a disk that
 * hangs does to the thread that reads from it, while all others go on. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    pid_t tid = argc > 1 ? (pid_t)atoi(argv[1]) : 0;
    char c;
    if (tid <= 0 || ptrace(PTRACE_SEIZE, tid, NULL, NULL) ||
        ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) || waitpid(tid, NULL, __WALL) != tid) {
        perror("lab_freeze");
        return 1;
    }
    puts("frozen");
    fflush(stdout);
    while (read(STDIN_FILENO, &c, 1) > 0) {
    }
    (void)ptrace(PTRACE_DETACH, tid, NULL, NULL);
    return 0;
}
