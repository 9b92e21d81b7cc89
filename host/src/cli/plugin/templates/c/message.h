// What has nothing to do with the host, and is tested without it: `make test`.

#include <stdbool.h>
#include <stddef.h>

struct slice {
    const char *start;
    size_t length;
};

// Finds `"key": "text"` in JSON, and copies the text; no if it is not there, is empty, or does
// not fit. That will do for flat objects without escapes; for more, add a JSON library.
bool json_text(struct slice json, const char *key, char *text, size_t size);

// The length of a text without the part of a character that snprintf may have left at its end. The host takes whole
// characters only: anything else is a trap.
size_t whole_characters(const char *text);

bool same(const char *one, const char *other);

void message(char *text, size_t size, const char *greeting, const char *user, const char *product);
