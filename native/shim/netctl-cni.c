/*
 * CNI plugin `netctl` (and, by the name it is called with, the IPAM plugin `netctl-ipam`): hands one call to the agent.
 * In: CNI_* environment, network configuration on standard input. Out: result or error JSON on standard output.
 * Answers VERSION itself and makes the same checks, in the same order and words, as the Go library `skel`
 * (specification 1.1.0); everything else is the agent's answer, passed through.
 * Must never end without JSON (except after a good DEL, CHECK, GC, STATUS) and never wait without a deadline.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "shim.h"

/* CNI error codes. */
enum { INCOMPATIBLE = 1, BAD_ENVIRONMENT = 4, IO_FAILURE = 5, UNDECODABLE = 6, BAD_CONFIG = 7, BAD_NETNS = 8 };
enum { TRY_AGAIN = 11, NOT_AVAILABLE = 50 };
/* Variables that a command requires. */
enum { NEEDS_ID = 1, NEEDS_NETNS = 2, NEEDS_IFNAME = 4, NEEDS_PATH = 8 };

static const char *const versions[] = {"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
#define VERSION_COUNT (sizeof versions / sizeof *versions)

/* From <linux/magic.h>, <linux/nsfs.h> and <sched.h>; musl has no kernel headers. */
#define NSFS_MAGIC 0x6e736673
#define PROC_MAGIC 0x9fa0
#define GET_NAMESPACE_TYPE 0xb703 /* NS_GET_NSTYPE */
#define NETWORK_NAMESPACE 0x40000000 /* CLONE_NEWNET */

#define LOCK_MS MILLISECONDS(5000)
#define VERSION_INPUT_MS MILLISECONDS(1000)

static const struct command {
  const char *name;
  int needs;
  unsigned since;  /* index of the first version that has the command */
  bool uses_netns; /* opens CNI_NETNS for the agent */
  bool retry;      /* try to connect again while nobody listens */
  bool queues;     /* is kept for later when the agent gives no answer */
  int connect_ms;  /* budget for connecting */
  int total_ms;    /* budget for everything */
  int unavailable; /* error code when the agent gives no answer */
} commands[] = {
    {"ADD", NEEDS_ID | NEEDS_NETNS | NEEDS_IFNAME | NEEDS_PATH, 0, true, true, false, 5000, 90000, TRY_AGAIN},
    {"DEL", NEEDS_ID | NEEDS_IFNAME | NEEDS_PATH, 0, true, true, true, 1000, 20000, TRY_AGAIN},
    {"CHECK", NEEDS_ID | NEEDS_NETNS | NEEDS_IFNAME | NEEDS_PATH, 4, true, true, false, 1000, 20000, TRY_AGAIN},
    {"GC", NEEDS_PATH, 6, false, true, false, 1000, 25000, TRY_AGAIN},
    {"STATUS", NEEDS_PATH, 6, false, false, false, 1000, 2000, NOT_AVAILABLE},
};

static char input[STDIN_MAX + 1];
static struct network_config config;
static struct request request;
static bool called_as_ipam;

static int options(const char *program, const char *option);
static int about(void);
static int answer_version(int64_t started);
static const struct command *find_command(const char *name);
static void check_environment(const struct command *command);
static void check_container_id(const char *id);
static void check_ifname(const char *name);
static bool read_input(int64_t until, size_t *length, char *why, size_t why_size);
static void check_config(size_t length, const struct command *command);
static void check_socket(void);
static int open_netns(bool required);
static void build_request(int netns_fd, const char *const *more, size_t more_count, size_t input_length);
static int call_agent(const struct command *command, size_t input_length, int64_t deadline);
static bool exchange_and_close(int fd, int64_t deadline, struct reply *reply, struct failure *failure);
static int delete_later(const struct failure *cause, size_t input_length, int64_t deadline);
static void read_boot_id(char *id, size_t size);
static _Noreturn void refuse(int code, const char *details, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

int main(int argc, char **argv) {
  int64_t started = now_ms();
  /* A runtime may have closed a standard descriptor; nothing that we open may take its number. */
  for (int fd = 0; fd <= 2; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) return 1;
  signals_prepare();

  const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
  const char *program = slash ? slash + 1 : argc > 0 ? argv[0] : "netctl";
  called_as_ipam = strcmp(program, "netctl-ipam") == 0;
  const char *name = getenv("CNI_COMMAND");
  if (argc > 1) return options(program, argv[1]);
  if (!name || !*name) return about();
  if (strcmp(name, "VERSION") == 0) return answer_version(started);

  const struct command *command = find_command(name);
  int64_t deadline = started + MILLISECONDS(command->total_ms);
  size_t length;
  char why[256];
  check_environment(command);
  if (!read_input(deadline, &length, why, sizeof why)) refuse(IO_FAILURE, "", "error reading from stdin: %s", why);
  check_config(length, command);
  check_socket();
  int netns_fd = command->uses_netns ? open_netns(command->needs & NEEDS_NETNS) : -1;
  build_request(netns_fd, NULL, 0, length);
  return call_agent(command, length, deadline);
}

static int options(const char *program, const char *option) {
  if (strcmp(option, "-v") == 0 || strcmp(option, "--version") == 0) {
    printf("%s %s\n", program, NETCTL_VERSION);
    return fflush(stdout) == 0 ? 0 : 1;
  }
  bool help = strcmp(option, "-h") == 0 || strcmp(option, "--help") == 0;
  fprintf(help ? stdout : stderr,
          "Usage: CNI_COMMAND=ADD|DEL|CHECK|GC|STATUS|VERSION CNI_...=... %s < network-configuration.json\n"
          "       %s -v | --version | -h | --help\n"
          "CNI plugin of netctl, run by a container runtime; it needs the agent netctld.\n",
          program, program);
  return help && fflush(stdout) == 0 ? 0 : 2;
}

static int about(void) {
  fprintf(stderr, "CNI plugin %s v%s\nCNI protocol versions supported: ", called_as_ipam ? "netctl-ipam" : "netctl",
          NETCTL_VERSION);
  for (size_t i = 0; i < VERSION_COUNT; i++) fprintf(stderr, "%s%s", i ? ", " : "", versions[i]);
  fputc('\n', stderr);
  return 0;
}

/* Answers whatever standard input holds, and also when it never ends. */
static int answer_version(int64_t started) {
  size_t length;
  char why[256];
  bool valid = read_input(started + VERSION_INPUT_MS, &length, why, sizeof why) &&
               json_read_config(input, length, &config, why, sizeof why);
  const struct config_string *asked = &config.cni_version;
  bool echo = valid && asked->state == STRING_GIVEN && asked->length > 0;
  return output_versions(echo ? asked->text : versions[VERSION_COUNT - 1], versions, VERSION_COUNT);
}

static const struct command *find_command(const char *name) {
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (strcmp(name, commands[i].name) == 0) return &commands[i];
  refuse(BAD_ENVIRONMENT, "", "unknown CNI_COMMAND: %s", name);
}

/* Names all missing variables at once, then looks at the two that have a form. */
static void check_environment(const struct command *command) {
  static const struct {
    const char *name;
    int need;
  } variables[] = {
      {"CNI_CONTAINERID", NEEDS_ID},
      {"CNI_NETNS", NEEDS_NETNS},
      {"CNI_IFNAME", NEEDS_IFNAME},
      {"CNI_PATH", NEEDS_PATH},
  };
  char missing[80] = "";
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
    const char *value = getenv(variables[i].name);
    if (!(command->needs & variables[i].need) || (value && *value)) continue;
    if (*missing) strcat(missing, ",");
    strcat(missing, variables[i].name);
  }
  if (*missing) refuse(BAD_ENVIRONMENT, "", "required env variables [%s] missing", missing);
  if (command->needs & NEEDS_ID) check_container_id(getenv("CNI_CONTAINERID"));
  if (command->needs & NEEDS_IFNAME) check_ifname(getenv("CNI_IFNAME"));
}

/* [a-zA-Z0-9][a-zA-Z0-9_.-]*, the form of container IDs and network names. */
static bool is_identifier(const char *text, size_t length) {
  static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  return length > 0 && strspn(text, first) == length && !strchr("-_.", text[0]);
}

static void check_container_id(const char *id) {
  if (!is_identifier(id, strlen(id))) refuse(BAD_ENVIRONMENT, id, "invalid characters in containerID");
}

static void check_ifname(const char *name) {
  if (strlen(name) > 15)
    refuse(BAD_ENVIRONMENT, "interface name should be less than 16 characters", "interface name is too long");
  if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) refuse(BAD_ENVIRONMENT, "", "interface name is . or ..");
  if (strpbrk(name, "/: \t\n\v\f\r"))
    refuse(BAD_ENVIRONMENT, "", "interface name contains / or : or whitespace characters");
}

/* Reads standard input to its end. */
static bool read_input(int64_t until, size_t *length, char *why, size_t why_size) {
  for (*length = 0; *length <= STDIN_MAX;) {
    enum wait_result waited = wait_for(STDIN_FILENO, POLLIN, until);
    if (waited != WAIT_READY) {
      snprintf(why, why_size, waited == WAIT_STOPPED ? "terminated by a signal" : "no end of input in time");
      return false;
    }
    ssize_t n = read(STDIN_FILENO, input + *length, sizeof input - *length);
    if (n == 0) return true;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n < 0) {
      snprintf(why, why_size, "%s", strerror(errno));
      return false;
    }
    *length += (size_t)n;
  }
  snprintf(why, why_size, "the network configuration is larger than %u bytes", STDIN_MAX);
  return false;
}

static void check_config(size_t length, const struct command *command) {
  char why[256], details[STRING_MAX + 256];
  struct config_string *name = &config.name, *version = &config.cni_version;
  bool valid = json_read_config(input, length, &config, why, sizeof why);
  if (valid && name->state == STRING_WRONG_TYPE) {
    snprintf(why, sizeof why, "name must be a string");
    valid = false;
  }
  if (!valid) refuse(UNDECODABLE, "", "error unmarshall network config: %s", why);
  if (name->state == STRING_TOO_LONG)
    refuse(BAD_CONFIG, "", "network name is longer than %d bytes", STRING_MAX - 1);
  if (name->length == 0) refuse(BAD_CONFIG, "", "missing network name");
  if (!is_identifier(name->text, name->length))
    refuse(BAD_CONFIG, name->text, "invalid characters found in network name");

  if (version->state == STRING_WRONG_TYPE)
    refuse(UNDECODABLE, "", "decoding version from network config: cniVersion must be a string");
  if (version->length == 0) strcpy(version->text, versions[0]), version->length = strlen(versions[0]);
  unsigned index = 0;
  while (index < VERSION_COUNT &&
         (strlen(versions[index]) != version->length || strcmp(versions[index], version->text) != 0))
    index++;
  if (index == VERSION_COUNT) {
    size_t n = (size_t)snprintf(details, sizeof details, "config is \"%s\", plugin supports [", version->text);
    for (size_t i = 0; i < VERSION_COUNT; i++)
      n += (size_t)snprintf(details + n, sizeof details - n, "%s\"%s\"", i ? " " : "", versions[i]);
    snprintf(details + n, sizeof details - n, "]");
    refuse(INCOMPATIBLE, details, "incompatible CNI versions");
  }
  if (index < command->since) refuse(INCOMPATIBLE, "", "config version does not allow %s", command->name);
}

/* The socket is the default unless the configuration names one. */
static void check_socket(void) {
  struct config_string *path = &config.socket;
  if (path->state == STRING_ABSENT) {
    strcpy(path->text, DEFAULT_SOCKET);
    return;
  }
  bool good = path->state == STRING_GIVEN && path->text[0] == '/' && path->text[path->length - 1] != '/' &&
              path->length < SOCKET_PATH_MAX && strlen(path->text) == path->length;
  if (!good)
    refuse(BAD_CONFIG, path->state == STRING_WRONG_TYPE ? "" : path->text,
           "socket must be the absolute path of a unix socket, a string of at most %zu bytes", SOCKET_PATH_MAX - 1);
}

/*
 * Opens CNI_NETNS so that the agent finds it as /proc/<pid>/fd/<n>. When it is not required (DEL), anything wrong
 * with it, being our own netns included, only means that there is none (-1): a DEL must not fail for that.
 */
static int open_netns(bool required) {
  const char *path = getenv("CNI_NETNS"), *override = getenv("CNI_NETNS_OVERRIDE");
  struct statfs fs;
  struct stat theirs, ours;
  char why[128] = "";
  if (!path || !*path) return -1;
  if (*path != '/') {
    /* It would mean something else to the agent, which looks for the namespace again after its start. */
    if (required) refuse(BAD_ENVIRONMENT, path, "CNI_NETNS must be an absolute path");
    return -1;
  }

  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) snprintf(why, sizeof why, "%s", strerror(errno));
  else if (fstatfs(fd, &fs) < 0 || fstat(fd, &theirs) < 0) snprintf(why, sizeof why, "%s", strerror(errno));
  else if (fs.f_type != NSFS_MAGIC && fs.f_type != PROC_MAGIC)
    snprintf(why, sizeof why, "not a namespace (file system 0x%lx)", (unsigned long)fs.f_type);
  else {
    int type = ioctl(fd, GET_NAMESPACE_TYPE); /* Linux 4.11; an error says nothing */
    if (type > 0 && type != NETWORK_NAMESPACE) snprintf(why, sizeof why, "a namespace, but not a network namespace");
  }
  if (*why) {
    if (required) refuse(BAD_NETNS, "", "cannot use CNI_NETNS %.400s: %s", path, why);
    if (fd >= 0) close(fd);
    return -1;
  }

  if (override && (strcasecmp(override, "TRUE") == 0 || strcmp(override, "1") == 0)) return fd;
  bool known = stat("/proc/self/ns/net", &ours) == 0;
  if (known && (theirs.st_dev != ours.st_dev || theirs.st_ino != ours.st_ino)) return fd;
  if (required && !known) refuse(BAD_NETNS, strerror(errno), "cannot read the plugin's own netns");
  if (required) refuse(BAD_NETNS, "", "plugin's netns and netns from CNI_NETNS should not be the same");
  close(fd);
  return -1;
}

static void build_request(int netns_fd, const char *const *more, size_t more_count, size_t input_length) {
  if (!request_build(&request, netns_fd, called_as_ipam, more, more_count, input, input_length))
    refuse(BAD_ENVIRONMENT, "", "the CNI_* variables are longer than %u bytes together", ENV_BLOCK_MAX);
}

static int call_agent(const struct command *command, size_t input_length, int64_t deadline) {
  struct reply reply;
  struct failure failure;
  int64_t connect_until = now_ms() + MILLISECONDS(command->connect_ms);
  int fd = agent_connect(config.socket.text, command->retry, connect_until, &failure);
  if (fd >= 0 && exchange_and_close(fd, deadline, &reply, &failure))
    return output_bytes(reply.output, reply.length, reply.exit_status);
  bool may_pass = failure.kind == UNREACHABLE || failure.kind == NO_ANSWER;
  if (command->queues && may_pass) return delete_later(&failure, input_length, deadline);
  const char *hint = failure.kind == UNREACHABLE ? "netctld is not running, or overloaded" : "";
  refuse(command->unavailable, hint, "netctl agent: %s", failure.text);
}

static bool exchange_and_close(int fd, int64_t deadline, struct reply *reply, struct failure *failure) {
  bool answered = agent_exchange(fd, &request, deadline, reply, failure);
  close(fd);
  return answered;
}

/* Leaves a DEL to the agent's next look into its queue. Success prints nothing: for the runtime the DEL is done. */
static int delete_later(const struct failure *cause, size_t input_length, int64_t deadline) {
  char directory[SOCKET_PATH_MAX + 16], queued_at[64], boot_id[64] = "NETCTL_BOOT_ID=";
  struct failure failure;
  struct reply reply;
  struct timespec now;
  if (!queue_find(config.socket.text, directory, sizeof directory, &failure)) goto refused;
  int lock = queue_lock(directory, now_ms() + LOCK_MS, &failure);
  if (lock < 0) goto refused;

  if (cause->kind == UNREACHABLE) {
    /* The agent may have come up, and emptied the queue, before we had the lock. */
    int fd = agent_connect(config.socket.text, false, 0, &failure);
    if (fd >= 0) {
      close(lock); /* the agent must not wait for us while we wait for it */
      if (exchange_and_close(fd, deadline, &reply, &failure))
        return output_bytes(reply.output, reply.length, reply.exit_status);
      if (failure.kind == PROTOCOL_MISMATCH) goto refused;
      if ((lock = queue_lock(directory, now_ms() + LOCK_MS, &failure)) < 0) goto refused;
    }
  }

  clock_gettime(CLOCK_REALTIME, &now);
  snprintf(queued_at, sizeof queued_at, "NETCTL_QUEUED_AT=%lld", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
  read_boot_id(boot_id + strlen(boot_id), 37);
  build_request(-1, (const char *const[]){queued_at, boot_id}, 2, input_length);
  bool written = queue_write(directory, config.name.text, getenv("CNI_CONTAINERID"), getenv("CNI_IFNAME"), &request,
                             &failure);
  close(lock);
  if (written) return 0;
refused:
  refuse(TRY_AGAIN, cause->text, "DEL was neither done nor queued: %s", failure.text);
}

static void read_boot_id(char *id, size_t size) {
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, id, size - 1);
  id[n > 0 ? n : 0] = '\0';
  if (fd >= 0) close(fd);
}

/* Ends the process with an error for the runtime. */
static _Noreturn void refuse(int code, const char *details, const char *format, ...) {
  char msg[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(msg, sizeof msg, format, arguments);
  va_end(arguments);
  const struct config_string *version = &config.cni_version;
  bool given = version->state == STRING_GIVEN && version->length > 0;
  exit(output_error(given ? version->text : "1.0.0", code, msg, details));
}
