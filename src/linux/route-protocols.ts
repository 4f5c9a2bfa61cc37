/**
 * The numbers by which routes in the kernel say whose they are (`proto` of `ip route`; /etc/iproute2/rt_protos).
 *
 * In: nothing. Out: numbers. Never: one that others use.
 */

/** Of the routes that stay on this host; `ip route show proto 110` lists them. */
export const routeProtocol = 110;

/** Of those that the other hosts are told of: BIRD learns them from the kernel, so no configuration changes for a route. */
export const announcedProtocol = 111;

/** What BIRD wrote there (RTPROT_BIRD). */
export const birdProtocol = 12;
