/* err.h - how a function says no.
 *
 * A function that can fail returns bool and takes `struct err *e` last. On false, e holds one code
 * and one sentence, written where the fault was seen; callers may prepend context with err_in(), and
 * the file that it is about with err_in_file(): of a sentence that a node may tell others, no other
 * part is a path.
 * Nothing is logged on the way up: whoever ends the chain prints e once, or answers with it.
 * A function that cannot fail returns void or a value and takes no err.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>

enum err_code {
    ERR_NONE = 0,
    ERR_IO,           // the operating system refused; the text ends with its reason
    ERR_USAGE,        // wrong option or argument
    ERR_FORMAT,       // a file or a message is malformed
    ERR_LIMIT,        // well-formed, but past a limit we set
    ERR_UNSUPPORTED,  // well-formed, but of a kind that this version cannot run
    ERR_MEMORY,       // the memory budget does not hold it
    ERR_STOPPED,      // the user or the system asked us to stop
};

/* Bytes of a sentence, whatever it is handed on in: an err, an alert, the end of a request, a message. It ends
 * with the remedy, which one cut shorter would lose: of what is too long the middle goes, part of a path. */
enum { ERR_TEXT = 400 };

/* Two wordings of one sentence, which differ where it names files: whoever asks over the network has no
 * business with our folders, and whoever started this program wants to find the file. */
struct err {
    enum err_code code;
    char text[ERR_TEXT];  // files by their names alone: for anybody
    char full[ERR_TEXT];  // with their folders: for the console
};

/* Every fallible prototype starts with MUST, so that an ignored failure does not compile. */
#define MUST __attribute__((warn_unused_result)) bool

/* Record a failure and return false: `return err_set(e, ERR_FORMAT, "bad magic %08x", m);` */
bool err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As err_set with ERR_IO, appending ": " and the text of errno. */
bool err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Prepend "what: " to a failure already recorded; returns false. Of what, where both are too long, its end is
 * kept: of a path the file. */
bool err_in(struct err *e, const char *what);
/* The same with the name of a file, or its path. */
bool err_in_file(struct err *e, const char *path);

/* The exit status of the contract: 1 failed, 2 usage, 3 bad input file, 4 cannot run here. */
int err_exit_status(const struct err *e);

#endif
