#include "contact.h"

#include "text.h"

#include <cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum { LARGEST_FILE = 1 << 20, LARGEST_MESSAGE = 16 << 20, KEY = 40 };

/* Returns the whole file, or NULL and errno. */
static char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    char *content = malloc(LARGEST_FILE);
    *size = content == NULL ? 0 : fread(content, 1, LARGEST_FILE, file);
    int broken = content == NULL ? ENOMEM : ferror(file) ? EIO : 0;
    fclose(file);
    if (broken) {
        free(content);
        errno = broken;
        return NULL;
    }
    return content;
}

/* A name that no other machine has: a random number that the kernel draws when it starts; "" outside Linux. */
static void read_machine(char *name, size_t size)
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (file == NULL || fgets(name, (int)size, file) == NULL)
        name[0] = '\0';
    if (file != NULL)
        fclose(file);
    name[strcspn(name, "\n")] = '\0';
}

static void read_random(unsigned char *bytes, size_t size)
{
    FILE *file = fopen("/dev/urandom", "rb");
    size_t got = file == NULL ? 0 : fread(bytes, 1, size, file);
    if (file != NULL)
        fclose(file);
    /* Without such a device, the process and a counter tell sockets of one machine apart. */
    static unsigned count;
    unsigned numbers[2] = {(unsigned)getpid(), ++count};
    if (got < size)
        memcpy(bytes, numbers, sizeof numbers);
}

static char *take_text(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text == NULL ? NULL : text_copy(text);
}

static bool take_token(const cJSON *root, unsigned char *token)
{
    const char *hex = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "token"));
    if (hex == NULL || strlen(hex) != (size_t)2 * WIRE_TOKEN || strspn(hex, "0123456789abcdefABCDEF") != strlen(hex))
        return false;
    for (size_t i = 0; i < WIRE_TOKEN; i++) {
        const char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        token[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    return true;
}

static bool take_keys(const cJSON *root, struct contact *contact)
{
    const cJSON *curve = cJSON_GetObjectItemCaseSensitive(root, "curve");
    contact->encrypted = cJSON_IsObject(curve);
    if (!contact->encrypted)
        return cJSON_IsNull(curve);
    char **keys[] = {&contact->server_public, &contact->client_public, &contact->client_secret};
    const char *names[] = {"server_public", "client_public", "client_secret"};
    for (size_t k = 0; k < 3; k++) {
        *keys[k] = take_text(curve, names[k]);
        if (*keys[k] == NULL || strlen(*keys[k]) != KEY)
            return false;
    }
    return true;
}

static bool take_all(const cJSON *root, struct contact *contact)
{
    const cJSON *epoch = cJSON_GetObjectItemCaseSensitive(root, "epoch");
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(root, "data");
    if (!cJSON_IsNumber(epoch) || epoch->valuedouble < 0 || epoch->valuedouble > UINT32_MAX || !cJSON_IsArray(data))
        return false;
    contact->epoch = (uint32_t)epoch->valuedouble;
    contact->host = take_text(root, "host");
    contact->control = take_text(root, "control");
    contact->heartbeat = take_text(root, "heartbeat");
    contact->encrypt_data = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "encrypt_data"));
    if (contact->host == NULL || contact->control == NULL || contact->heartbeat == NULL)
        return false;
    contact->data = calloc((size_t)cJSON_GetArraySize(data) + 1, sizeof *contact->data);
    const cJSON *endpoint;
    cJSON_ArrayForEach(endpoint, data) {
        const char *text = cJSON_GetStringValue(endpoint);
        char *copy = text == NULL || contact->data == NULL ? NULL : text_copy(text);
        if (copy == NULL)
            return false;
        contact->data[contact->ranks++] = copy;
    }
    contact->in_place = calloc(contact->ranks + 1, sizeof *contact->in_place);
    if (contact->in_place == NULL)
        return false;
    const cJSON *machines = cJSON_GetObjectItemCaseSensitive(root, "machines");
    char here[64];
    read_machine(here, sizeof here);
    for (size_t rank = 0; rank < contact->ranks && here[0] != '\0'; rank++) {
        const char *machine = cJSON_GetStringValue(cJSON_GetArrayItem(machines, (int)rank));
        contact->in_place[rank] = machine != NULL && strcmp(machine, here) == 0;
    }
    return take_token(root, contact->token) && take_keys(root, contact);
}

char *contact_read(const char *path, struct contact *contact)
{
    memset(contact, 0, sizeof *contact);
    size_t size = 0;
    char *content = read_file(path, &size), *wrong = NULL;
    if (content == NULL) {
        wrong = text_format("%s: can't read the server's contact file: %s", path, strerror(errno));
        return wrong == NULL ? wire_no_memory : wrong;
    }
    cJSON *root = cJSON_ParseWithLength(content, size);
    if (!take_all(root, contact)) {
        wrong = text_format("%s: is not a contact file of this version", path);
        wrong = wrong == NULL ? wire_no_memory : wrong;
    }
    cJSON_Delete(root);
    free(content);
    return wrong;
}

void contact_free(struct contact *contact)
{
    char *texts[] = {contact->host,          contact->control,       contact->heartbeat,
                     contact->server_public, contact->client_public, contact->client_secret};
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++)
        free(texts[t]);
    for (size_t r = 0; r < contact->ranks; r++)
        free(contact->data[r]);
    free(contact->data);
    free(contact->in_place);
    memset(contact, 0, sizeof *contact);
}

static bool set_number(void *peer, int option, int value)
{
    return zmq_setsockopt(peer, option, &value, sizeof value) == 0;
}

static bool set_key(void *peer, int option, const char *key)
{
    return zmq_setsockopt(peer, option, key, KEY + 1) == 0;
}

/* Logs in to an unencrypted data socket: the password is the token in hexadecimal digits. */
static bool set_login(void *peer, const unsigned char *token)
{
    static const char USERNAME[] = "melissa_gen";
    char password[2 * WIRE_TOKEN + 1];
    for (size_t i = 0; i < WIRE_TOKEN; i++)
        snprintf(password + 2 * i, 3, "%02x", token[i]);
    return zmq_setsockopt(peer, ZMQ_PLAIN_USERNAME, USERNAME, sizeof USERNAME - 1) == 0 &&
           zmq_setsockopt(peer, ZMQ_PLAIN_PASSWORD, password, sizeof password - 1) == 0;
}

void *contact_context(const struct contact *contact)
{
    void *context = zmq_ctx_new();
    /* One socket per server rank, and two that watch its handshake; the default is about 1000. */
    if (context != NULL && contact->ranks > 300)
        zmq_ctx_set(context, ZMQ_MAX_SOCKETS, (int)(3 * contact->ranks + 64));
    return context;
}

/* Opens a socket that reports the end of a handshake; NULL and errno after a failure. */
static void *open_monitor(void *context, void *peer)
{
    char name[64];
    snprintf(name, sizeof name, "inproc://handshake-%p", peer);
    if (zmq_socket_monitor(peer, name, ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) != 0)
        return NULL;
    void *monitor = zmq_socket(context, ZMQ_PAIR);
    if (monitor == NULL || zmq_connect(monitor, name) == 0)
        return monitor;
    int why = errno;
    zmq_close(monitor);
    errno = why;
    return NULL;
}

void *contact_connect(const struct contact *contact, void *context, const char *endpoint, void **monitor)
{
    bool data = monitor != NULL;
    void *peer = zmq_socket(context, ZMQ_DEALER);
    if (peer == NULL)
        return NULL;
    int64_t limit = LARGEST_MESSAGE;
    int queue = data ? 0 : 1000; /* messages; data sockets are bounded by the credit */
    /* The server recognizes the socket after a reconnect. A connection on which nothing is confirmed ends. */
    unsigned char identity[16] = {'M'};
    read_random(identity + 1, sizeof identity - 1);
    bool done = zmq_setsockopt(peer, ZMQ_ROUTING_ID, identity, sizeof identity) == 0 &&
                set_number(peer, ZMQ_CONNECT_TIMEOUT, 2000) && set_number(peer, ZMQ_TCP_MAXRT, 6000) &&
                set_number(peer, ZMQ_TCP_KEEPALIVE_IDLE, 5) && set_number(peer, ZMQ_TCP_KEEPALIVE_INTVL, 2) &&
                set_number(peer, ZMQ_TCP_KEEPALIVE_CNT, 3);
    done = done && set_number(peer, ZMQ_LINGER, 1000) && set_number(peer, ZMQ_SNDHWM, queue) &&
                set_number(peer, ZMQ_RCVHWM, queue) && set_number(peer, ZMQ_TCP_KEEPALIVE, 1) &&
                set_number(peer, ZMQ_HANDSHAKE_IVL, 10000) &&
                zmq_setsockopt(peer, ZMQ_MAXMSGSIZE, &limit, sizeof limit) == 0;
    if (contact->encrypted && (contact->encrypt_data || !data))
        done = done && set_key(peer, ZMQ_CURVE_SERVERKEY, contact->server_public) &&
               set_key(peer, ZMQ_CURVE_PUBLICKEY, contact->client_public) &&
               set_key(peer, ZMQ_CURVE_SECRETKEY, contact->client_secret);
    else if (contact->encrypted)
        done = done && set_login(peer, contact->token);
    if (done && data)
        done = (*monitor = open_monitor(context, peer)) != NULL;
    if (done && zmq_connect(peer, endpoint) == 0)
        return peer;
    int why = errno;
    if (data && *monitor != NULL) {
        zmq_socket_monitor(peer, NULL, 0);
        zmq_close(*monitor);
        *monitor = NULL;
    }
    set_number(peer, ZMQ_LINGER, 0);
    zmq_close(peer);
    errno = why;
    return NULL;
}
