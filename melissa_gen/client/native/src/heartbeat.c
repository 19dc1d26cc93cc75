#include "heartbeat.h"

#include "text.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

static const double GRACE_SECONDS = 10.0;

struct heartbeat {
    void *context;
    const struct contact *contact;
    struct wire_peer peer; /* a copy: the thread of the solver numbers its messages in its own */
    const char *job;
    double interval, heartbeat_timeout;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all members below */
    pthread_cond_t wake;
    bool closing;
    struct wire_progress progress;
    double began; /* when the first simulation was requested; 0: not yet */
    double waiting; /* since when the solver has waited beyond the noted seconds; 0: it does not wait */
    double entered, returned; /* when the solver called the client, and when it went on; 0: it does the other */
    double counted; /* seconds of waiting and sending when it called */
    enum heartbeat_end end;
    char *reason;
};

double heartbeat_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The progress, with the seconds of what the solver does now. The lock is held. */
static struct wire_progress current_progress(const struct heartbeat *heartbeat)
{
    struct wire_progress progress = heartbeat->progress;
    double now = heartbeat_now();
    if (heartbeat->began > 0)
        progress.elapsed = now - heartbeat->began;
    double waited = heartbeat->waiting > 0 ? now - heartbeat->waiting : 0;
    if (progress.state == WIRE_WAITING_FOR_CREDIT)
        progress.credit_seconds += waited;
    else
        progress.next_seconds += waited;
    if (heartbeat->returned > 0)
        progress.solving += now - heartbeat->returned;
    return progress;
}

static void end_with(struct heartbeat *heartbeat, enum heartbeat_end end, char *reason)
{
    pthread_mutex_lock(&heartbeat->lock);
    if (heartbeat->end == HEARTBEAT_RUNS) {
        heartbeat->end = end;
        heartbeat->reason = reason;
    } else {
        wire_free(reason);
    }
    pthread_mutex_unlock(&heartbeat->lock);
}

/* Waits for `seconds`, or until the client is closing, which it returns. */
static bool wait_for_closing(struct heartbeat *heartbeat, double seconds)
{
    double until = heartbeat_now() + fmin(seconds, 1e6);
    struct timespec then = {(time_t)until, (long)(1e9 * (until - floor(until)))};
    pthread_mutex_lock(&heartbeat->lock);
    while (!heartbeat->closing && pthread_cond_timedwait(&heartbeat->wake, &heartbeat->lock, &then) != ETIMEDOUT)
        ;
    bool closing = heartbeat->closing;
    pthread_mutex_unlock(&heartbeat->lock);
    return closing;
}

/* Receives one message of the server; false if there is none. */
static bool listen_once(struct heartbeat *heartbeat, void *peer)
{
    zmq_msg_t message;
    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, peer, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&message);
        return errno == EINTR;
    }
    uint16_t kind = 0;
    char *text = NULL, *wrong = wire_kind(zmq_msg_data(&message), zmq_msg_size(&message), &kind);
    if (wrong == NULL && kind == WIRE_STOP)
        wrong = wire_read_text(zmq_msg_data(&message), zmq_msg_size(&message), &text);
    zmq_msg_close(&message);
    wire_free(wrong); /* any message shows that the server is alive */
    if (text != NULL)
        end_with(heartbeat, HEARTBEAT_STOPPED, text);
    return true;
}

/* Removes the shared memory file of this MPI job, which MPICH leaves behind when its ranks are ended. */
static void drop_shared_memory(void)
{
    static const char PREFIX[] = "/dev/shm/mpich_shm_";
    DIR *opened = opendir("/proc/self/fd");
    for (struct dirent *entry; opened != NULL && (entry = readdir(opened)) != NULL;) {
        char target[256];
        ssize_t size = readlinkat(dirfd(opened), entry->d_name, target, sizeof target - 1);
        if (size > 0 && strncmp(target, PREFIX, sizeof PREFIX - 1) == 0) {
            target[size] = '\0';
            unlink(target);
        }
    }
    if (opened != NULL)
        closedir(opened);
}

/* Gives the thread of the solver time to notice, then ends the process, which may wait in an MPI call forever. */
static void end_stuck_solver(struct heartbeat *heartbeat)
{
    if (wait_for_closing(heartbeat, GRACE_SECONDS))
        return;
    fprintf(stderr, "ending: %s\n", heartbeat->reason);
    fflush(stderr);
    drop_shared_memory();
    kill(getpid(), SIGTERM);
}

static void *run(void *argument)
{
    struct heartbeat *heartbeat = argument;
    struct wire_out out = {0};
    void *peer = contact_connect(heartbeat->contact, heartbeat->context, heartbeat->contact->heartbeat, NULL);
    double heard = heartbeat_now();
    const char *reason;
    if (peer == NULL) {
        char *text = text_format("can't open the heartbeat's socket: %s", zmq_strerror(errno));
        end_with(heartbeat, HEARTBEAT_SILENT, text == NULL ? wire_no_memory : text);
    }
    while (peer != NULL) {
        pthread_mutex_lock(&heartbeat->lock);
        struct wire_progress progress = current_progress(heartbeat);
        pthread_mutex_unlock(&heartbeat->lock);
        wire_alive(&out, &heartbeat->peer, heartbeat->job, &progress);
        if (!out.failed) /* if the server is gone, the queue stays full; the silence is detected below */
            zmq_send(peer, out.data, out.size, ZMQ_DONTWAIT);
        while (listen_once(heartbeat, peer))
            heard = heartbeat_now();
        double silence = heartbeat_now() - heard;
        if (silence > heartbeat->heartbeat_timeout) {
            char *text = text_format("the training server has been silent for %.0f s", silence);
            end_with(heartbeat, HEARTBEAT_SILENT, text == NULL ? wire_no_memory : text);
        }
        if (heartbeat_ended(heartbeat, &reason) != HEARTBEAT_RUNS) {
            end_stuck_solver(heartbeat);
            break;
        }
        if (wait_for_closing(heartbeat, heartbeat->interval))
            break;
    }
    free(out.data);
    if (peer != NULL) {
        int linger = 0;
        zmq_setsockopt(peer, ZMQ_LINGER, &linger, sizeof linger);
        zmq_close(peer);
    }
    return NULL;
}

struct heartbeat *heartbeat_start(void *context, const struct contact *contact, const struct wire_peer *peer,
                                  const char *job, double interval, double heartbeat_timeout)
{
    struct heartbeat *heartbeat = calloc(1, sizeof *heartbeat);
    if (heartbeat == NULL)
        return NULL;
    heartbeat->context = context;
    heartbeat->contact = contact;
    heartbeat->peer = *peer;
    heartbeat->peer.number = heartbeat->peer.received = 0;
    heartbeat->job = job;
    heartbeat->interval = interval;
    heartbeat->heartbeat_timeout = heartbeat_timeout;
    heartbeat->progress.state = WIRE_WAITING_FOR_PARAMETERS;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&heartbeat->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&heartbeat->lock, NULL);

    sigset_t all, before; /* the thread of the solver handles all signals */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&heartbeat->thread, NULL, run, heartbeat);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        pthread_cond_destroy(&heartbeat->wake);
        pthread_mutex_destroy(&heartbeat->lock);
        free(heartbeat);
        return NULL;
    }
    return heartbeat;
}

void heartbeat_close(struct heartbeat *heartbeat)
{
    if (heartbeat == NULL)
        return;
    pthread_mutex_lock(&heartbeat->lock);
    heartbeat->closing = true;
    pthread_cond_signal(&heartbeat->wake);
    pthread_mutex_unlock(&heartbeat->lock);
    pthread_join(heartbeat->thread, NULL);
    pthread_cond_destroy(&heartbeat->wake);
    pthread_mutex_destroy(&heartbeat->lock);
    wire_free(heartbeat->reason);
    free(heartbeat);
}

void heartbeat_note(struct heartbeat *heartbeat, uint16_t state, uint32_t simulation, uint32_t step,
                    double credit_seconds, double next_seconds)
{
    if (heartbeat == NULL)
        return;
    pthread_mutex_lock(&heartbeat->lock);
    struct wire_progress *progress = &heartbeat->progress;
    progress->state = state;
    progress->simulation = simulation;
    progress->step = step;
    progress->credit_seconds += credit_seconds;
    progress->next_seconds += next_seconds;
    bool waits = state == WIRE_WAITING_FOR_CREDIT || (state == WIRE_WAITING_FOR_PARAMETERS && next_seconds <= 0);
    heartbeat->waiting = waits ? heartbeat_now() : 0;
    if (heartbeat->began <= 0)
        heartbeat->began = heartbeat->waiting;
    pthread_mutex_unlock(&heartbeat->lock);
}

/* Seconds in which the solver has waited or sent. The lock is held. */
static double counted_seconds(const struct wire_progress *progress)
{
    return progress->credit_seconds + progress->next_seconds + progress->sending;
}

void heartbeat_enter(struct heartbeat *heartbeat)
{
    if (heartbeat == NULL)
        return;
    double now = heartbeat_now();
    pthread_mutex_lock(&heartbeat->lock);
    if (heartbeat->returned > 0)
        heartbeat->progress.solving += now - heartbeat->returned;
    heartbeat->returned = 0;
    heartbeat->entered = now;
    heartbeat->counted = counted_seconds(&heartbeat->progress);
    pthread_mutex_unlock(&heartbeat->lock);
}

void heartbeat_leave(struct heartbeat *heartbeat)
{
    if (heartbeat == NULL)
        return;
    double now = heartbeat_now();
    pthread_mutex_lock(&heartbeat->lock);
    struct wire_progress *progress = &heartbeat->progress;
    progress->copying += fmax(now - heartbeat->entered - (counted_seconds(progress) - heartbeat->counted), 0.0);
    heartbeat->returned = now;
    pthread_mutex_unlock(&heartbeat->lock);
}

void heartbeat_sent(struct heartbeat *heartbeat, double began)
{
    if (heartbeat == NULL)
        return;
    pthread_mutex_lock(&heartbeat->lock);
    heartbeat->progress.sending += heartbeat_now() - began;
    pthread_mutex_unlock(&heartbeat->lock);
}

enum heartbeat_end heartbeat_ended(struct heartbeat *heartbeat, const char **reason)
{
    if (heartbeat == NULL)
        return HEARTBEAT_RUNS;
    pthread_mutex_lock(&heartbeat->lock);
    enum heartbeat_end end = heartbeat->end;
    *reason = heartbeat->reason;
    pthread_mutex_unlock(&heartbeat->lock);
    return end;
}
