using Vmm.Vhost.Native;

namespace Vmm.Vhost.User.Backend;

/// <content>The channel towards the front-end.</content>
internal sealed partial class BackendSession
{
    private void OpenChannel(FileDescriptor descriptor)
    {
        using (descriptor)
        {
            UnixSocket socket;
            try
            {
                socket = UnixSocket.Adopt(descriptor);
            }
            catch (ErrnoException e)
            {
                throw new RefusedException(e.Message);
            }
            CloseChannel();
            _device.FrontEnd = new VhostUserBackendChannel(
                new VhostUserConnection(socket, $"{_connection.Peer} (back-end's channel)"), _protocolFeatures, _options.Deadline);
        }
    }

    private void CloseChannel()
    {
        VhostUserBackendChannel? channel = _device.FrontEnd;
        _device.FrontEnd = null;
        channel?.Dispose();
    }
}
