/*
 * One thread that stands by to send on a netlink socket what the JavaScript thread goes on beside, and later waits for. It is started
 * once, since to start one takes the JavaScript thread as long as what it would save.
 *
 * Life: of the addon's instance; it stays in the namespace of the JavaScript thread. Never: two sends at once; a send without its end waited
 * for, also when the JavaScript thread ends first.
 */
#ifndef NETCTL_STANDBY_H
#define NETCTL_STANDBY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct standby;

/* NULL with errno. */
struct standby *standby_new(void);
/* Copies the bytes. EBUSY while another send is not finished; 0, or an errno. */
int standby_begin(struct standby *standby, int fd, const uint8_t *bytes, size_t length);
/* Waits for the end of what was begun: 0, or the errno of the send; EINVAL where nothing was. */
int standby_finish(struct standby *standby);
/* Waits, and ends the thread. NULL is nothing. */
void standby_free(struct standby *standby);

#endif
