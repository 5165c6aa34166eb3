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
            var channel = new BackendRequestSender(
                new VhostUserConnection(socket, $"{_connection.Peer} (back-end's channel)") { Received = _connection.Received }, _protocolFeatures, _options.Deadline);
            if (_device.FrontEnd is BackendRequestSender earlier)
                channel.TakeOver(earlier);
            CloseChannel();
            _device.FrontEnd = channel;
        }
    }

    // Behind the answer to the message by which the first ring has started: a front-end that waits for that answer may not see to another message.
    private void ResumeChannel()
    {
        if (_device.FrontEnd is not BackendRequestSender channel || !RunsAny)
            return;
        try
        {
            channel.Resume();
        }
        catch (VhostUserException e)
        {
            s_log.Warn("{Device}: {Reason}: the front-end does not hear that the configuration has changed", _device.ServedAs, e.Message);
        }
    }

    // Before the answer to the message by which the last ring has stopped.
    private void SuspendChannel()
    {
        if (!RunsAny)
            _device.FrontEnd?.Suspend();
    }

    private void CloseChannel()
    {
        BackendRequestSender? channel = _device.FrontEnd;
        _device.FrontEnd = null;
        channel?.Dispose();
    }
}
