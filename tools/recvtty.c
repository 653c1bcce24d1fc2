/*
 * Takes terminals from a console socket: what runc's suite calls recvtty.
 *
 *   recvtty [--mode null|single] [--no-stdin] [--pid-file FILE] SOCKET
 *
 * The suite does not wait for the socket, so this program must be as fast as
 * the original: no interpreter.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

/* The descriptor that a runtime sends, with the terminal's name. */
static int receive(int connection)
{
	char name[4096];
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec data = { name, sizeof(name) };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	if (recvmsg(connection, &message, MSG_CMSG_CLOEXEC) < 0)
		err(1, "recvmsg");
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	if (!head || head->cmsg_type != SCM_RIGHTS)
		errx(1, "no descriptor arrived");
	int fd;
	memcpy(&fd, CMSG_DATA(head), sizeof(fd));
	return fd;
}

/* Copies until the other side is closed, which is EIO for a terminal. */
static void copy(int from, int to)
{
	char data[4096];
	ssize_t length;
	while ((length = read(from, data, sizeof(data))) > 0)
		if (to >= 0 && write(to, data, length) != length)
			err(1, "write");
}

int main(int argc, char **argv)
{
	const struct option options[] = {
		{ "mode", required_argument, 0, 'm' },
		{ "no-stdin", no_argument, 0, 'n' },
		{ "pid-file", required_argument, 0, 'p' },
		{ 0 },
	};
	const char *mode = "single", *pid_file = NULL;
	/* bats waits until nobody has its descriptor 3 open. */
	close_range(3, ~0U, 0);
	int option;
	while ((option = getopt_long(argc, argv, "m:", options, NULL)) != -1)
		switch (option) {
		case 'm': mode = optarg; break;
		case 'n': break;
		case 'p': pid_file = optarg; break;
		default: return 1;
		}
	if (optind != argc - 1)
		errx(1, "give one path of a socket");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(argv[optind]) >= sizeof(address.sun_path))
		errx(1, "the path of the socket is too long");
	strcpy(address.sun_path, argv[optind]);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 16))
		err(1, "%s", argv[optind]);
	if (pid_file) {
		FILE *file = fopen(pid_file, "w");
		if (!file || fprintf(file, "%d", getpid()) < 0 || fclose(file))
			err(1, "%s", pid_file);
	}
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (connection < 0)
			err(1, "accept");
		if (!strcmp(mode, "single")) {
			int terminal = receive(connection);
			struct termios modes;
			if (tcgetattr(terminal, &modes))
				err(1, "tcgetattr");
			modes.c_oflag &= ~ONLCR;
			if (tcsetattr(terminal, TCSANOW, &modes))
				err(1, "tcsetattr");
			copy(terminal, STDOUT_FILENO);
			return 0;
		}
		/* The terminals live as long as their readers: one process each,
		 * which end with this one. */
		if (fork() == 0) {
			copy(receive(connection), -1);
			return 0;
		}
		close(connection);
	}
}
